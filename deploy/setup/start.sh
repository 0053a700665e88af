#!/bin/sh
# Gives each service of docker-compose.yml only the secrets that it needs, in its own volume. A
# secret is copied from secrets/ if it is there, otherwise generated once. A secret in use stays,
# unless `take NAME` requests another one, which must be in secrets/.
set -eu
umask 077

# The users that the services run as.
peerloan=10001
nginx=101
postgres=$(id -u postgres)

fail() {
    echo "setup: $*" >&2
    exit 1
}

give_folder() { # FOLDER USER
    # Only the owner may change a folder's mode here; root may not.
    [ "$(stat -c '%u %a' "$1")" = "$2 700" ] || { chown 0 "$1" && chmod 700 "$1" && chown "$2" "$1"; }
}

write() { # FILE USER: write standard input atomically, readable by this user only
    rm -f "$1.new"
    cat >"$1.new"
    chmod 400 "$1.new"
    chown "$2" "$1.new"
    sync "$1.new"
    mv "$1.new" "$1"
}

copy() { # FROM TO USER
    cmp -s "$1" "$2" || write "$2" "$3" <"$1"
}

secret() { # NAME FILE: the secret in use, in the volume of its users
    brought=/secrets/$1
    if [ -e "$brought" ]; then
        [ -f "$brought" ] && [ -s "$brought" ] || fail "secrets/$1: expected a file that is not empty"
        if [ -e "$2" ] && ! cmp -s "$brought" "$2" && [ "$take" != "$1" ]; then
            fail "secrets/$1 is not the one in use. Remove the file to keep the secret in use;" \
                'to change it, see "The secrets" in docs/deploy.md'
        fi
        copy "$brought" "$2" $peerloan
    elif [ "$take" = "$1" ]; then
        fail "secrets/$1: expected a file to take, found none"
    elif [ ! -e "$2" ]; then
        [ "$1" != ledger_password ] || [ ! -e "$PGDATA/PG_VERSION" ] \
            || fail "the ledger's database has a password already, and it is not here." \
                "Put it into secrets/$1; docs/deploy.md says what to do if it is lost"
        od -An -N32 -tx1 /dev/urandom | tr -d ' \n' | write "$2" $peerloan
        echo "setup: made the secret $1" >&2
    fi
}

case "$#:${1:-}:${2:-}" in
    0:*) take='' ;;
    2:take:ledger_password | 2:take:webhook_secret) take=$2 ;;
    *) fail "expected nothing, or: take ledger_password, or: take webhook_secret; given: $*" ;;
esac

# The permissions of a clone depend on the umask of the person who made it.
closed=$(find /deploy/nginx /deploy/ledger \( -type d ! -perm -005 -o -type f ! -perm -004 \) | head -n 1)
[ -z "$closed" ] || fail ".$closed can't be read by other users, as containers are." \
    'Run: chmod -R go+rX books certificates deploy rules'

# One process at a time.
exec 9<"/volumes/application"
flock 9
give_folder /volumes/application $peerloan
give_folder /volumes/monitor $peerloan
give_folder /volumes/database "$postgres"
give_folder /volumes/certificate $nginx
secret ledger_password /volumes/application/ledger_password
secret webhook_secret /volumes/monitor/webhook_secret
copy /volumes/application/ledger_password /volumes/monitor/ledger_password $peerloan
copy /volumes/application/ledger_password /volumes/database/ledger_password "$postgres"
