#!/bin/sh
# Prepares an installation with its own secrets and rules, as a Swarm needs; with docker-compose.yml missing
# ones are created automatically. Before the first start it creates the mounted folders, the monitoring
# rules, the ledger's password, and the secret that signs a webhook's events. Existing files stay unchanged,
# except for the mode of secrets/.
set -eu
umask 077
cd "$(dirname "$0")/.."

for folder in books certificates rules; do
    [ -d "$folder" ] || install -d -m 755 "$folder"
done
[ -e rules/rules.toml ] || install -m 644 deploy/rules.toml rules/rules.toml

# The folder's mode keeps other users of this machine from the files, which the containers' users must be
# able to read. Also for an existing folder.
mkdir -p secrets
chmod 700 secrets

make() { # NAME: make a secret
    secret=secrets/$1
    # Some engines create an empty folder if a file to mount is missing.
    [ ! -d "$secret" ] || rmdir "$secret"
    [ ! -e "$secret" ] || return 0
    od -An -N32 -tx1 /dev/urandom | tr -d ' \n' >"$secret.new"
    chmod 444 "$secret.new"
    # Link it into place atomically, and never over an existing one.
    ln "$secret.new" "$secret"
    rm "$secret.new"
    echo "prepare: made $secret; keep a copy of it, but not with the ledger's backups" >&2
}

make ledger_password
make webhook_secret
