#!/bin/sh
# Makes what a first start needs beside the images: the folders that are mounted, and the ledger's
# password. What is there already stays as it is.
set -eu
cd "$(dirname "$0")/.."

for folder in books certificates; do
    [ -d "$folder" ] || install -d -m 755 "$folder"
done

# Two users read the password, each in a container of its own; on this machine the folder is its
# owner's alone, so nobody else comes as far as the file.
[ -d secrets ] || install -d -m 700 secrets
password=secrets/ledger_password
# Some engines make an empty folder where a file that they shall mount is missing.
[ ! -d "$password" ] || rmdir "$password"
if [ ! -e "$password" ]; then
    (umask 077 && od -An -N32 -tx1 /dev/urandom | tr -d ' \n' >"$password.new")
    chmod 444 "$password.new"
    # Moved into its place whole, and never over another.
    ln "$password.new" "$password"
    rm "$password.new"
    echo "prepare: $password is made; keep a copy of it where the ledger's backups are not" >&2
fi
