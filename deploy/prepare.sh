#!/bin/sh
# For who brings secrets and rules of their own, as a Swarm asks for; docker-compose.yml makes what it
# misses by itself. Makes, before the first start, the folders that are mounted, the rules by which the
# model is watched, the ledger's password, and the secret that signs what a webhook is told. What is
# there already stays as it is, but for the mode of secrets/.
set -eu
umask 077
cd "$(dirname "$0")/.."

for folder in books certificates rules; do
    [ -d "$folder" ] || install -d -m 755 "$folder"
done
[ -e rules/rules.toml ] || install -m 644 deploy/rules.toml rules/rules.toml

# The folder is its owner's alone, so nobody else on this machine comes as far as the files, which the
# containers' users have to be able to read. Also where the folder was there before.
mkdir -p secrets
chmod 700 secrets

make() { # NAME: a secret
    secret=secrets/$1
    # Some engines make an empty folder where a file that they shall mount is missing.
    [ ! -d "$secret" ] || rmdir "$secret"
    [ ! -e "$secret" ] || return 0
    od -An -N32 -tx1 /dev/urandom | tr -d ' \n' >"$secret.new"
    chmod 444 "$secret.new"
    # Moved into its place whole, and never over another.
    ln "$secret.new" "$secret"
    rm "$secret.new"
    echo "prepare: $secret is made; keep a copy of it where the ledger's backups are not" >&2
}

make ledger_password
make webhook_secret
