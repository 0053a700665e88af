#!/bin/sh
# Upgrades the ledger's tables with the newest image, then replaces the application's containers one by one
# without losing a request. If the upgrade fails, nothing is replaced. A new container that does not become
# healthy is removed, and the old ones stay.
set -eu
cd "$(dirname "$0")/.."

compose() {
    if command -v docker-compose >/dev/null; then docker-compose "$@"; else docker compose "$@"; fi
}

# Containers of the application, including stopped ones.
every() {
    compose ps -a -q ms_flask_app 2>/dev/null || compose ps -q ms_flask_app
}

running() {
    for container in $(every); do
        [ "$(docker inspect --format '{{.State.Running}}' "$container")" != true ] || echo "$container"
    done
}

remove() {
    docker rm --force "$1" >/dev/null
}

addresses() {
    docker inspect --format '{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}' "$1"
}

health() {
    docker inspect --format '{{.State.Health.Status}} {{.RestartCount}}' "$1"
}

healthy() {
    case $(health "$1") in healthy*) ;; *) return 1 ;; esac
}

decided() { # healthy, unhealthy, or restarting repeatedly
    case $(health "$1") in healthy* | unhealthy* | *' '[3-9] | *' '[1-9][0-9]*) ;; *) return 1 ;; esac
}

balanced() {
    for address in $(addresses "$1"); do
        compose exec -T nginx grep -q "server $address:" /tmp/peerloan/servers.used && return
    done
    return 1
}

within() { # SECONDS COMMAND …
    tries=$1
    shift
    until "$@"; do
        tries=$((tries - 1))
        [ $tries -gt 0 ] || return 1
        sleep 1
    done
}

stop() { # WHY
    echo "update: $1; the old ones stay" >&2
    exit 1
}

refuse() { # CONTAINER WHY
    docker logs --tail 20 "$1" >&2 || true
    remove "$1"
    stop "the new container $2; its log is above"
}

old=$(running)
if [ -z "$old" ]; then
    echo 'update: no application runs; start it with: docker-compose up -d' >&2
    exit 1
fi

compose run --rm --no-deps -T setup </dev/null || stop 'setup found a problem with the secrets; see above'
# A running database is not recreated, even if its settings have changed.
compose up -d --no-deps --no-recreate ledger || stop "the ledger's database could not be started"
within 60 healthy "$(compose ps -q ledger)" || stop "the ledger's database is not healthy"
compose run --rm --no-deps -T ledger_upgrade </dev/null || stop 'the ledger was not upgraded'

count=$(echo "$old" | wc -l)
# A stopped container would be started instead of a new one.
for container in $(every); do
    echo "$old" | grep -qxF "$container" || remove "$container"
done
for container in $old; do
    before=$(every)
    compose up -d --no-deps --no-recreate --scale "ms_flask_app=$((count + 1))" ms_flask_app || true
    new=$(every | grep -vxF "$before" || true)
    [ "$(echo "$new" | grep -c .)" = 1 ] || stop 'compose started no new container'
    within 60 decided "$new" || true
    healthy "$new" || refuse "$new" 'did not become healthy'
    within 30 balanced "$new" || refuse "$new" 'is not used by Nginx'
    docker stop "$container" >/dev/null
    remove "$container"
done
echo "update: $count containers replaced" >&2
