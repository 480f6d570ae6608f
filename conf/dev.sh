#!/bin/sh
# conf/dev.sh run|start|stop: engine and nginx on this machine, for trying out.
#
# Runs conf/nginx.conf and conf/engine.conf as they stand, but for paths and
# ports.  What must be reachable for workers that dropped root (socket,
# temporary files, the page) lies under a run directory, not in the checkout,
# which may be in root's home.

set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
build=${BUILD:-build}
case $build in /*) ;; *) build=$root/$build ;; esac
port=${PORT:-8080}
tls_port=${TLS_PORT:-8443}
host=${LISTEN:-127.0.0.1}
nginx=/usr/sbin/nginx
uid=$(id -u)

# the XDG directory of another user is in the environment after a plain su
if [ "$uid" = 0 ]; then
    run=/run/ngx_llm-$port
elif [ -n "${XDG_RUNTIME_DIR:-}" ] && [ -O "$XDG_RUNTIME_DIR" ]; then
    run=$XDG_RUNTIME_DIR/ngx_llm-$port
else
    run=/tmp/ngx_llm-$uid-$port
fi

stop_command="make stop"
[ "$port" = 8080 ] || stop_command="make stop PORT=$port"

die() {
    echo "$*" >&2
    exit 1
}

# A pid file may outlive its process, and the number may be somebody else's by
# now: ours has the run directory on its command line, or this script's name
# before its exec.  A process that is dead but not waited for has none.
alive() { # is the process in pid file $1 running?
    number=$(cat "$1" 2>/dev/null) || return 1
    { tr '\0' ' ' <"/proc/$number/cmdline"; } 2>/dev/null |
        grep -qF -e " $run/" -e "$0"
}

# Workers whose master was killed go on serving; they keep its process group.
orphans() {
    [ -s "$run/nginx.pid" ] || return 0
    group=$(cat "$run/nginx.pid")
    for stat in /proc/[0-9]*/stat; do
        { read -r pid name state _ pgrp _ <"$stat"; } 2>/dev/null || continue
        [ "$name" = "(nginx)" ] && [ "$state" != Z ] &&
            [ "$pgrp" = "$group" ] && echo "$pid"
    done
    return 0
}

stop_one() { # pid file, seconds until it is killed
    alive "$1" || return 0
    pid=$(cat "$1")
    kill -TERM "$pid" 2>/dev/null || return 0
    n=0
    while alive "$1"; do
        n=$((n + 1))
        [ $n -lt $(($2 * 10)) ] || { kill -KILL "$pid" 2>/dev/null; break; }
        sleep 0.1
    done
}

running() {
    alive "$run/nginx.pid" || alive "$run/engine.pid" || [ -n "$(orphans)" ]
}

stop_all() {
    stop_one "$run/nginx.pid" 5
    left=$(orphans)
    # shellcheck disable=SC2086
    [ -z "$left" ] || kill -KILL $left 2>/dev/null || true
    stop_one "$run/engine.pid" 5
    rm -f "$run/nginx.pid" "$run/engine.pid"
}

check_port() { # name, value
    case $2 in
    *[!0-9]* | "" | 0* | ??????*) die "$1=$2: a number from 1 to 65535 is expected." ;;
    esac
    [ "$2" -le 65535 ] ||
        die "$1=$2: a number from 1 to 65535 is expected."
    # local address and state of every TCP socket; 0A is listening
    if cat /proc/net/tcp /proc/net/tcp6 2>/dev/null | awk '{print $2, $4}' |
        grep -q ":$(printf %04X "$2") 0A"; then
        die "Port $2 is taken by another program; choose one with $1=..."
    fi
    first=$(cat /proc/sys/net/ipv4/ip_unprivileged_port_start 2>/dev/null ||
        echo 0)
    [ "$uid" = 0 ] || [ "$2" -ge "$first" ] ||
        die "$1=$2: ports below $first are root's."
}

choose_model() {
    model=${MODEL:-$root/conf/demo/ngx-llm-demo.gguf}
    [ -r "$model" ] || die "$model: no such model, or not readable; name one with MODEL=path.gguf."
}

make_certificate() { # once, and again a day before it ends
    [ -s "$run/localhost.key" ] && openssl x509 -checkend 86400 -noout \
        -in "$run/localhost.crt" >/dev/null 2>&1 && return
    openssl req -x509 -newkey rsa:2048 -nodes -days 825 \
        -subj /CN=localhost -addext subjectAltName=DNS:localhost,IP:127.0.0.1 \
        -keyout "$run/localhost.key" -out "$run/localhost.crt" 2>/dev/null ||
        die "openssl could not make a certificate for localhost."
    chmod 600 "$run/localhost.key"
}

# The module is named relative to the run directory, so nothing has to be
# quoted wherever the checkout lies.
write_conf() {
    mkdir -p "$run/modules"
    ln -sfn "$build/nginx/ngx_http_llm_module.so" "$run/modules/"
    rm -rf "$run/page"
    cp -r "$root/conf/page" "$run/page"
    chmod -R a+rX "$run/page"
    sed -e "s|unix:/run/llm/engine.sock|unix:$run/engine.sock|" \
        -e "s|listen *8080|listen $host:$port|" -e "s|listen *8443|listen $host:$tls_port|" \
        -e "s|/etc/nginx/llm/localhost|$run/localhost|" \
        -e "s|/usr/share/ngx_llm/page|$run/page|" \
        -e "s|^http {|http {\n    access_log $run/access.log;\n    client_body_temp_path $run/body;\n    proxy_temp_path $run/proxy;\n    fastcgi_temp_path $run/fastcgi;\n    uwsgi_temp_path $run/uwsgi;\n    scgi_temp_path $run/scgi;|" \
        "$root/conf/nginx.conf" >"$run/nginx.conf"
    {
        [ "$uid" = 0 ] && echo "user www-data;"
        echo "pid $run/nginx.pid;"
        echo "error_log $run/error.log notice;"
    } >>"$run/nginx.conf"
}

start_engine() {
    # each client is a descriptor, and the soft limit is often 1024
    ulimit -Sn 16384 2>/dev/null || true
    group=
    [ "$uid" = 0 ] && group="--socket_group=www-data"
    # shellcheck disable=SC2086
    setsid "$build/llm-engine" -c "$root/conf/engine.conf" \
        --listen "$run/engine.sock" --model "$model" $group \
        >>"$run/engine.log" 2>&1 </dev/null &
    echo $! >"$run/engine.pid"
}

wait_ready() { # up to 5 minutes: a big model takes a while to load
    n=0
    until curl -fsS --noproxy '*' -o /dev/null "http://127.0.0.1:$port/ready" 2>/dev/null; do
        alive "$run/engine.pid" || {
            tail -n 3 "$run/engine.log" >&2
            stop_all
            die "The engine did not start; its log is $run/engine.log"
        }
        n=$((n + 1))
        [ $n -ne 30 ] || echo "Waiting until the engine has loaded $model."
        [ $n -lt 3000 ] || { stop_all; die "Not ready after 5 minutes."; }
        sleep 0.1
    done
}

start_all() {
    [ -x "$build/llm-engine" ] || die "Run make first: no $build/llm-engine."
    running && die "It is running already; $stop_command ends it."
    check_port PORT "$port"
    check_port TLS_PORT "$tls_port"
    [ "$port" != "$tls_port" ] || die "PORT and TLS_PORT are both $port."
    choose_model
    mkdir -p -m 755 "$run"
    [ -O "$run" ] && [ ! -L "$run" ] || die "$run belongs to somebody else."
    trap 'trap "" HUP INT TERM; stop_all; exit 1' HUP INT TERM
    : >"$run/engine.log"
    : >"$run/error.log"
    make_certificate
    write_conf
    start_engine
    "$nginx" -e "$run/error.log" -p "$run" -c "$run/nginx.conf" || {
        stop_all
        die "nginx did not start; its log is $run/error.log"
    }
    wait_ready
    name=$(curl -fsS --noproxy '*' "http://127.0.0.1:$port/v1/models" |
        sed 's/.*"data":\[{"id":"\([^"]*\)".*/\1/')
    cat <<TEXT
Ready: $name on http://localhost:$port and https://localhost:$tls_port
Open http://localhost:$port/ in a browser, or try:

  curl -N http://localhost:$port/v1/completions -H 'Content-Type: application/json' \\
    -d '{"model":"$name","prompt":"Once upon a time","max_tokens":60,"stream":true}'

Watch the engine: $build/llm-top $run/engine.sock
Certificate: $run/localhost.crt
Logs: $run/*.log
TEXT
}

case "${1:-}" in
start)
    start_all
    echo "$stop_command ends it."
    ;;
stop)
    if running; then
        stop_all
        echo "Stopped."
    else
        echo "Nothing is running on port $port."
    fi
    ;;
run)
    start_all
    echo "Ctrl-C ends it."
    trap 'trap "" HUP INT TERM; stop_all; echo "Stopped."; exit 0' HUP INT TERM
    while alive "$run/engine.pid" && alive "$run/nginx.pid"; do
        sleep 1 &
        wait $! || true
    done
    tail -n 3 "$run/engine.log" "$run/error.log" >&2
    stop_all
    die "It ended by itself; see the logs."
    ;;
*)
    die "usage: $0 run|start|stop"
    ;;
esac
