"""Says of YAML documents whether a JSON Schema takes them, as YAML 1.1 and as YAML 1.2 are read: editors differ.
usage: validate.py SCHEMA < JSON list of documents > JSON list of [by 1.1, by 1.2]"""
import json, re, sys, yaml
from jsonschema import Draft202012Validator


class Yaml11(yaml.SafeLoader):
    pass


class Yaml12(yaml.SafeLoader):
    """The core schema of YAML 1.2: yes is a text, 0400 a decimal number, and 1:30 a text."""


# JSON has no dates: an editor shows them as texts.
without_dates = [(first, [pair for pair in pairs if not pair[0].endswith(":timestamp")])
                 for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()]
Yaml11.yaml_implicit_resolvers = dict(without_dates)
Yaml12.yaml_implicit_resolvers = {}
for tag, pattern, first in [
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", list("-+0123456789.")),
]:
    Yaml12.add_implicit_resolver("tag:yaml.org,2002:" + tag, re.compile("^(?:" + pattern + ")$"), first)


def number(loader, node):
    text = node.value
    return int(text, 0) if text.startswith(("0o", "0x")) else int(text)


Yaml12.add_constructor("tag:yaml.org,2002:int", number)


def as_json(value):
    """Keys are texts in JSON."""
    if isinstance(value, dict):
        return {str(key): as_json(item) for key, item in value.items()}
    return [as_json(item) for item in value] if isinstance(value, list) else value


schema = json.load(open(sys.argv[1]))
Draft202012Validator.check_schema(schema)
validator = Draft202012Validator(schema)
documents = json.load(sys.stdin)
json.dump([[validator.is_valid(as_json(yaml.load(text, loader))) for loader in (Yaml11, Yaml12)] for text in documents], sys.stdout)
