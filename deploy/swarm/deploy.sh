#!/bin/sh
# Updates the stack to these files and .env, and waits until the update is done or was rolled back. It
# starts with the ledger's database and its tables; if that fails, nothing else is changed. Arguments:
# further stack files, such as deploy/swarm/tls.yml.
set -eu
umask 077
cd "$(dirname "$0")/../.."

# Variables of the shell override .env, as in compose.
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
LEDGER_FILES=$(cat deploy/ledger/* | sha256sum | cut -c 1-12)
if [ ! -f rules/rules.toml ]; then
    echo 'deploy: no rules/rules.toml; make it by: sh deploy/prepare.sh' >&2
    exit 1
fi
RULES_FILE=$(sha256sum rules/rules.toml | cut -c 1-12)
export NGINX_FILES LEDGER_FILES RULES_FILE

stack=${PEERLOAN_STACK:-peerloan}
password=${stack}_ledger_password
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

settled() { # whether a service is up to date, or was rolled back
    now=$(update "$1")
    old=$(cat "$before/$1.update")
    case $now in *updating | *rollback_started) return 1 ;; esac
    # A changed service is done when the manager reports it, and not before its update has begun.
    if grep -q '{' "$before/$1.template" && [ "$now" = "$old" ]; then
        [ "$(template "$1")" = "$(cat "$before/$1.template")" ] || return 1
    fi
    case $now in *rollback_* | *paused) [ "$now" = "$old" ] || return 0 ;; esac
    running=$(replicas "$1")
    [ "${running%/*}" = "${running#*/}" ]
}

remember() { # SERVICE …: save their state before the update
    for service; do
        template "$service" >"$before/$service.template"
        update "$service" >"$before/$service.update"
    done
}

await() { # SERVICE …: wait until each is settled; fails if one was rolled back
    rolled_back=0
    for service; do
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
        case $now in *rollback_* | *paused) rolled_back=1 ;; esac
    done
    return $rolled_back
}

job_state() {
    docker service ps --format '{{.CurrentState}}' "$job" | cut -d ' ' -f 1
}

upgrade() { # upgrade the ledger's tables with the application's release
    # A service that runs once, not a job: Swarm does not always remove a job's container.
    docker service rm "$job" >/dev/null 2>&1 || true # left by an interrupted run
    docker service create --detach --quiet --with-registry-auth --name "$job" \
        --restart-condition none --no-healthcheck \
        --network "${stack}_application_ledger" --read-only --cap-drop ALL --limit-memory 512m \
        --mount type=tmpfs,target=/tmp \
        --secret "source=$password,target=ledger_password,uid=10001,mode=0400" \
        --env PEERLOAN_LEDGER=postgresql://peerloan@ledger/peerloan \
        --env PEERLOAN_LEDGER_PASSWORD_FILE=/run/secrets/ledger_password \
        "${PEERLOAN_REGISTRY:-peerloan}/ms_flask_app:${PEERLOAN_RELEASE:-latest}" \
        ledger upgrade >/dev/null || return 1
    tries=600
    while :; do
        case $(job_state) in Complete | Failed | Rejected | Orphaned | Remove | Shutdown) break ;; esac
        tries=$((tries - 1))
        [ $tries -gt 0 ] || break
        sleep 1
    done
    ended=$(job_state)
    docker service logs --raw "$job" >&2 || true
    [ "$ended" = Complete ] || docker service ps --no-trunc --format '{{.CurrentState}}: {{.Error}}' "$job" >&2
    docker service rm "$job" >/dev/null
    [ "$ended" = Complete ]
}

stop() { # WHY
    echo "deploy: $1; nothing else was touched" >&2
    exit 1
}

secrets=$(docker secret ls --format '{{.Name}}')
for name in ledger_password webhook_secret; do
    if ! echo "$secrets" | grep -qxF "${stack}_$name"; then
        echo "deploy: no secret ${stack}_$name; make it by: sh deploy/prepare.sh &&" \
            "docker secret create ${stack}_$name secrets/$name" >&2
        exit 1
    fi
done
# The database stays where its volume is; at the first deployment, on this machine.
if [ -z "$(docker node ls -q --filter node.label=peerloan_ledger=here)" ]; then
    docker node update --label-add peerloan_ledger=here "$(docker info --format '{{.Swarm.NodeID}}')" >/dev/null
fi

before=$(mktemp -d)
trap 'rm -r "$before"' EXIT

remember ledger
# A newer image with the same name must not restart the database.
docker stack deploy --with-registry-auth --resolve-image changed -c deploy/swarm/ledger.yml "$stack"
await ledger || stop "the ledger's database was rolled back"
job=${stack}_ledger_upgrade
upgrade || stop 'the ledger was not upgraded'

remember nginx ms_flask_app ms_model ms_monitor
docker stack deploy --with-registry-auth -c deploy/swarm/stack.yml "$@" "$stack"
await nginx ms_flask_app ms_model ms_monitor
