#!/bin/sh
# Brings the stack to what stands here and in .env, and waits until it is so, or was rolled back.
# Arguments: further stack files, such as deploy/swarm/tls.yml.
set -eu
cd "$(dirname "$0")/../.."

# What the shell has wins over .env, as in compose.
shell=$(export -p)
if [ -e .env ]; then
    set -a
    # Values with spaces stand without quotes there, as compose reads them.
    eval "$(sed -n "s/^\([A-Z_]*\)=\(.*\)$/\1='\2'/p" .env)"
    set +a
fi
eval "$shell"
NGINX_FILES=$(cat deploy/nginx/* | sha256sum | cut -c 1-12)
export NGINX_FILES

stack=${PEERLOAN_STACK:-peerloan}
for file; do set -- "$@" -c "$file"; shift; done
docker stack deploy --with-registry-auth -c deploy/swarm/stack.yml "$@" "$stack"

# Swarm takes a moment to begin; a service that did not change has nothing to wait for.
failed=0
for service in nginx ms_flask_app ms_model; do
    sleep 2
    while :; do
        state=$(docker service inspect --format '{{if .UpdateStatus}}{{.UpdateStatus.State}}{{end}}' "${stack}_$service")
        running=$(docker service ls --filter "name=${stack}_$service" --format '{{.Replicas}}' | cut -d ' ' -f 1)
        case $state in
        updating | rollback_started) ;;
        '' | completed) [ "${running%/*}" != "${running#*/}" ] || break ;;
        *) break ;;
        esac
        sleep 1
    done
    echo "$service: ${state:-running}, $running" >&2
    case $state in rollback_* | *paused) failed=1 ;; esac
done
exit $failed
