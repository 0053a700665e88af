#!/bin/sh
# Replaces the application's containers by ones of the newest image, one by one and without a request
# lost; a new one that does not become healthy is removed, and the old ones stay.
set -eu
cd "$(dirname "$0")/.."

compose() {
    if command -v docker-compose >/dev/null; then docker-compose "$@"; else docker compose "$@"; fi
}

running() {
    compose ps -q ms_flask_app
}

scale() {
    compose up -d --no-deps --no-recreate --scale "ms_flask_app=$1" ms_flask_app
}

state() {
    docker inspect --format '{{.State.Health.Status}}' "$1"
}

old=$(running)
count=$(echo "$old" | wc -w)
for container in $old; do
    before=$(running)
    scale $((count + 1))
    new=$(running | grep -vxF "$before")
    tries=60
    until [ "$(state "$new")" = healthy ]; do
        tries=$((tries - 1))
        if [ $tries -eq 0 ] || [ "$(state "$new")" = unhealthy ]; then
            docker logs --tail 20 "$new" >&2
            docker rm --force "$new" >/dev/null
            echo "update: the new container did not become healthy; its log stands above, the old ones stay" >&2
            exit 1
        fi
        sleep 1
    done
    sleep 2 # until Nginx has taken it up
    docker stop "$container" >/dev/null
    docker rm "$container" >/dev/null
done
echo "update: $count replaced" >&2
