# Stands for whoever writes the secrets and decides who may read them. MiniStack runs it once it answers.
import json
import os

from botocore.session import get_session


def client(service):
    return get_session().create_client(service, endpoint_url=os.environ["AWS_ENDPOINT_URL"])


database = {"username": "app", "password": "fake/pass word", "host": "db"}
client("secretsmanager").create_secret(Name="shop/database", SecretString=json.dumps(database))
client("secretsmanager").create_secret(Name="shop/jwt", SecretString=json.dumps({"key": "fake-key-that-is-no-key"}))

iam = client("iam")
iam.create_user(UserName="app")
with open("/policy.json") as policy:
    iam.put_user_policy(UserName="app", PolicyName="secrets", PolicyDocument=policy.read())
key = iam.create_access_key(UserName="app")["AccessKey"]
with open("/login/credentials", "w") as file:
    file.write(f"[default]\naws_access_key_id = {key['AccessKeyId']}\naws_secret_access_key = {key['SecretAccessKey']}\n")
