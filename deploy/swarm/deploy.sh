#!/bin/sh
# Brings the stack to what stands here and in .env, and waits until it is so, or was rolled back.
# Arguments: further stack files, such as deploy/swarm/tls.yml.
set -eu
cd "$(dirname "$0")/../.."

# What the shell has wins over .env, as in compose.
if [ -e .env ]; then
    number=0
    while IFS= read -r line || [ -n "$line" ]; do
        number=$((number + 1))
        case $line in '' | '#'*) continue ;; esac
        if ! printf '%s\n' "$line" | grep -Eqx '[A-Z][A-Z_]*=[A-Za-z0-9_./: -]*'; then
            echo "deploy: .env, line $number: expected NAME=value without quotes, \$ or a comment" >&2
            exit 2
        fi
        name=${line%%=*}
        printenv "$name" >/dev/null || export "$name=${line#*=}"
    done <.env
fi
NGINX_FILES=$(cat deploy/nginx/* | sha256sum | cut -c 1-12)
export NGINX_FILES

stack=${PEERLOAN_STACK:-peerloan}
for file; do
    set -- "$@" -c "$file"
    shift
done

template() {
    docker service inspect --format '{{json .Spec.TaskTemplate}}' "${stack}_$1" 2>/dev/null || true
}

update() {
    docker service inspect --format \
        '{{if .UpdateStatus}}{{.UpdateStatus.StartedAt}} {{.UpdateStatus.State}}{{end}}' \
        "${stack}_$1" 2>/dev/null || true
}

replicas() {
    docker service ls --filter "name=${stack}_$1" --format '{{.Replicas}}' | cut -d ' ' -f 1
}

settled() { # whether a service is as it should be, or was rolled back
    now=$(update "$1")
    old=$(cat "$before/$1.update")
    case $now in *updating | *rollback_started) return 1 ;; esac
    # A service that changes is done when the manager says so, and not before it has begun.
    if grep -q '{' "$before/$1.template" && [ "$now" = "$old" ]; then
        [ "$(template "$1")" = "$(cat "$before/$1.template")" ] || return 1
    fi
    case $now in *rollback_* | *paused) [ "$now" = "$old" ] || return 0 ;; esac
    running=$(replicas "$1")
    [ "${running%/*}" = "${running#*/}" ]
}

before=$(mktemp -d)
trap 'rm -r "$before"' EXIT
services='nginx ms_flask_app ms_model'
for service in $services; do
    template "$service" >"$before/$service.template"
    update "$service" >"$before/$service.update"
done
docker stack deploy --with-registry-auth -c deploy/swarm/stack.yml "$@" "$stack"

failed=0
for service in $services; do
    tries=600
    until settled "$service"; do
        tries=$((tries - 1))
        if [ $tries -eq 0 ]; then
            docker service ps --no-trunc "${stack}_$service" >&2
            echo "$service: not done in time" >&2
            exit 1
        fi
        sleep 1
    done
    now=$(update "$service")
    [ "$now" != "$(cat "$before/$service.update")" ] || now=running
    now=${now:-running}
    echo "$service: ${now##* }, $(replicas "$service")" >&2
    case $now in *rollback_* | *paused) failed=1 ;; esac
done
exit $failed
