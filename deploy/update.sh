#!/bin/sh
# Replaces the application's containers by ones of the newest image, one by one and without a request
# lost; a new one that does not become healthy is removed, and the old ones stay.
set -eu
cd "$(dirname "$0")/.."

compose() {
    if command -v docker-compose >/dev/null; then docker-compose "$@"; else docker compose "$@"; fi
}

# Containers of the application, those that do not run too.
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

decided() { # healthy, unhealthy, or dying again and again
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

refuse() { # CONTAINER WHY
    docker logs --tail 20 "$1" >&2 || true
    remove "$1"
    echo "update: the new container $2; its log stands above, the old ones stay" >&2
    exit 1
}

old=$(running)
if [ -z "$old" ]; then
    echo 'update: no application runs; start it with: docker-compose up -d' >&2
    exit 1
fi
count=$(echo "$old" | wc -l)
# What does not run would be started instead of a new one.
for container in $(every); do
    echo "$old" | grep -qxF "$container" || remove "$container"
done
for container in $old; do
    before=$(every)
    compose up -d --no-deps --no-recreate --scale "ms_flask_app=$((count + 1))" ms_flask_app || true
    new=$(every | grep -vxF "$before" || true)
    if [ "$(echo "$new" | grep -c .)" != 1 ]; then
        echo 'update: no new container could be made; the old ones stay' >&2
        exit 1
    fi
    within 60 decided "$new" || true
    case $(health "$new") in healthy*) ;; *) refuse "$new" 'did not become healthy' ;; esac
    within 30 balanced "$new" || refuse "$new" 'was not taken up by Nginx'
    docker stop "$container" >/dev/null
    remove "$container"
done
echo "update: $count replaced" >&2
