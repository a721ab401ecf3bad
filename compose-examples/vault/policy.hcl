path "secret/data/app/database" { capabilities = ["read"] }
path "secret/data/app/jwt" { capabilities = ["read"] }
