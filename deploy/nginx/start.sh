# Writes the settings of this installation, follows the application's containers, and runs nginx.
set -eu

# The final dot keeps resolvers from adding search domains to the name.
app=${PEERLOAN_APP:-ms_flask_app}.
rate=${PEERLOAN_RATE:-200}
trusted=${PEERLOAN_TRUSTED_PROXIES:-}
proxy_protocol=${PEERLOAN_PROXY_PROTOCOL:-off}
https_port=${PEERLOAN_HTTPS_PORT:-443}
prefix=${PEERLOAN_PREFIX:-}
certificate=/certificates/tls.crt
key=/certificates/tls.key
here=/tmp/peerloan

fail() {
    echo "nginx: $*" >&2
    exit 1
}

expect() { # NAME VALUE PATTERN WHAT
    printf '%s\n' "$2" | grep -Eqx "$3" || fail "$1: expected $4, given '$2'"
}

# With a volume for it, a self-signed certificate is used again until its last month.
make_certificate() {
    made=$here
    [ ! -w /certificate ] || made=/certificate
    certificate=$made/tls.pem
    key=$certificate
    ! openssl x509 -checkend 2592000 -noout -in "$certificate" >/dev/null 2>&1 || return 0
    echo 'nginx: no certificate is mounted; making one that browsers will warn of' >&2
    # One file for key and certificate, so that neither exists without the other.
    (umask 077 && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes \
        -days 825 -subj /CN=localhost -addext subjectAltName=DNS:localhost,IP:127.0.0.1 \
        -keyout "$made/tls.key.new" -out "$made/tls.crt.new" 2>/dev/null \
        && cat "$made/tls.key.new" "$made/tls.crt.new" >"$certificate.new" \
        && rm "$made/tls.key.new" "$made/tls.crt.new" \
        && mv "$certificate.new" "$certificate") || fail 'openssl made no certificate'
}

write_settings() {
    hsts=''
    if [ -e /certificates ] && ! { [ -r /certificates ] && [ -x /certificates ]; }; then
        fail "/certificates can't be read by user $(id -u)"
    elif [ -e "$certificate" ] || [ -e "$key" ]; then
        for file in "$certificate" "$key"; do
            [ -r "$file" ] || fail "$file can't be read by user $(id -u), or is not there"
        done
        hsts='max-age=31536000'
    else
        make_certificate
    fi
    {
        echo "limit_req_zone \$binary_remote_addr zone=clients:10m rate=${rate}r/s;"
        echo "limit_req zone=clients burst=$((rate * 2)) nodelay;"
        echo 'geo $realip_remote_addr $trusted {'
        echo '    default 0;'
        # A balancer with the PROXY protocol passes on X-Forwarded-For as the client sent it.
        [ "$proxy_protocol" = on ] || for network in $trusted; do echo "    $network 1;"; done
        echo '}'
        for network in $trusted; do echo "set_real_ip_from $network;"; done
        echo 'real_ip_recursive on;'
        [ "$proxy_protocol" = on ] && echo 'real_ip_header proxy_protocol;' || echo 'real_ip_header X-Forwarded-For;'
        [ "$https_port" = 443 ] && port='' || port=":$https_port"
        echo "map \$scheme \$https_port { default \"$port\"; }"
        echo "map \$scheme \$hsts { https \"$hsts\"; default \"\"; }"
    } >"$here/settings.conf"

    # A proxy in front may pass on the prefix; the locations have addresses without it.
    dots=$(printf '%s' "$prefix" | sed 's/\./\\./g')
    { [ -z "$prefix" ] || echo "rewrite ^$dots(/.*)\$ \$1;"; } >"$here/prefix.conf"

    [ "$proxy_protocol" = on ] && with=' proxy_protocol' || with=''
    echo "listen 8080$with;" >"$here/http.conf"
    # Plain HTTP for this machine: the port must not be published to others.
    echo 'server { listen 8082; include site.conf; }' >"$here/local.conf"
    {
        # From 1.25.1 on, HTTP/2 has its own directive.
        version=$(nginx -v 2>&1 | sed 's|.*/\([0-9.]*\).*|\1|')
        if [ "$(printf '%s\n' 1.25.1 "$version" | sort -V | head -n 1)" = 1.25.1 ]; then
            echo "listen 8443 ssl$with;"
            echo 'http2 on;'
        else
            echo "listen 8443 ssl http2$with;"
        fi
        echo "ssl_certificate $certificate;"
        echo "ssl_certificate_key $key;"
    } >"$here/https.conf"
}

# Lists the application's servers from DNS. A new server is used once it is ready. A server in use
# stays until DNS no longer lists it, because its failed requests are passed on to another. If no
# server is ready, all are listed, so that callers get the application's error.
list_servers() {
    known=$(getent ahostsv4 "$app" | cut -d ' ' -f 1 | sort -u)
    if [ -z "$known" ]; then
        # If DNS does not respond, keep the servers that work.
        grep -s '^server [0-9.]*:5000 max_fails' "$here/servers.conf" || echo 'server 127.0.0.1:5000 down;'
        return
    fi
    used=''
    for address in $known; do
        if grep -qs "^server $address:" "$here/servers.conf" && [ -e "$here/some-ready" ] \
            || curl --silent --fail --max-time 2 --output /dev/null "http://$address:5000/readyz"; then
            used="$used $address"
        fi
    done
    if [ -n "$used" ]; then : >"$here/some-ready"; else rm -f "$here/some-ready"; fi
    for address in ${used:-$known}; do
        # max_fails=0: one request that breaks a connection must not disable the server for others.
        echo "server $address:5000 max_fails=0;"
    done
}

follow() {
    set +e
    while sleep 1; do
        list_servers >"$here/servers.new"
        if ! cmp -s "$here/servers.new" "$here/servers.conf"; then
            cp "$here/servers.new" "$here/servers.conf"
            : >"$here/reload-due"
        fi
        if [ -e "$here/reload-due" ]; then
            # Retry until the configuration is valid: a person may be changing it.
            if nginx -t -q 2>"$here/fault" && nginx -s reload; then
                rm -f "$here/reload-due"
                cp "$here/servers.conf" "$here/servers.used"
                echo "nginx: servers: $(tr '\n' ' ' <"$here/servers.conf")" >&2
            elif ! cmp -s "$here/fault" "$here/fault.told"; then
                echo "nginx: can't reload, and goes on as it is: $(cat "$here/fault")" >&2
                cp "$here/fault" "$here/fault.told"
            fi
        fi
        : >"$here/following"
    done
}

expect PEERLOAN_RATE "$rate" '[1-9][0-9]{0,5}' 'a number of requests a second'
expect PEERLOAN_HTTPS_PORT "$https_port" '[1-9][0-9]{0,4}' 'a port'
expect PEERLOAN_PROXY_PROTOCOL "$proxy_protocol" 'on|off' 'on or off'
expect PEERLOAN_TRUSTED_PROXIES "$trusted" '[0-9a-fA-F.:/ ]*' 'addresses or networks, with spaces between'
expect PEERLOAN_PREFIX "$prefix" '(/[A-Za-z0-9._~-]+)*' 'a path such as /risk'

mkdir -p "$here"
write_settings
list_servers >"$here/servers.conf"
cp "$here/servers.conf" "$here/servers.used"
nginx -t -q
follow &
exec nginx -g 'daemon off;'
