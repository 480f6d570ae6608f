#!/bin/sh
# conf/dev.sh run|start|stop: engine and nginx on this machine, for trying out.
#
# Runs conf/nginx.conf and conf/engine.conf as they stand, but for paths and
# ports.  What must be reachable for workers that dropped root (socket,
# temporary files) lies under a run directory, not in the checkout, which may
# be in root's home.

set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
build=${BUILD:-build}
case $build in /*) ;; *) build=$root/$build ;; esac
port=${PORT:-8080}
tls_port=${TLS_PORT:-8443}
nginx=/usr/sbin/nginx
uid=$(id -u)

if [ "$uid" = 0 ]; then
    run=/run/ngx_llm-$port
else
    run=${XDG_RUNTIME_DIR:-/tmp}/ngx_llm-$uid-$port
fi

die() {
    echo "$*" >&2
    exit 1
}

alive() { # is the process in pid file $1 running?
    [ -s "$1" ] && kill -0 "$(cat "$1")" 2>/dev/null
}

stop_one() { # pid file, seconds until it is killed
    alive "$1" || return 0
    pid=$(cat "$1")
    kill -TERM "$pid" 2>/dev/null || return 0
    n=0
    while kill -0 "$pid" 2>/dev/null; do
        n=$((n + 1))
        [ $n -lt $(($2 * 10)) ] || { kill -KILL "$pid" 2>/dev/null; break; }
        sleep 0.1
    done
    rm -f "$1"
}

stop_all() {
    stop_one "$run/nginx.pid" 5
    stop_one "$run/engine.pid" 5
}

choose_model() { # sets $model, or $device to null
    device=cpu
    model=${MODEL:-}
    if [ -n "$model" ]; then
        [ -r "$model" ] || die "MODEL=$model: no such file, or not readable."
        return
    fi
    for model in "$root"/conf/demo/*.gguf \
        "$root"/../shared/data/models/stories260K/stories260K.gguf; do
        [ -r "$model" ] && return
    done
    model=
    device=null
    echo "No model given (MODEL=path.gguf): the engine will say canned words."
}

make_certificate() {
    [ -s "$run/localhost.key" ] && return
    openssl req -x509 -newkey rsa:2048 -nodes -days 825 \
        -subj /CN=localhost -addext subjectAltName=DNS:localhost,IP:127.0.0.1 \
        -keyout "$run/localhost.key" -out "$run/localhost.crt" 2>/dev/null ||
        die "openssl could not make a certificate for localhost."
    chmod 600 "$run/localhost.key"
}

write_conf() {
    sed -e "s|modules/ngx_http_llm_module.so|$build/nginx/ngx_http_llm_module.so|" \
        -e "s|unix:/run/llm/engine.sock|unix:$run/engine.sock|" \
        -e "s|listen *8080|listen $port|" -e "s|listen *8443|listen $tls_port|" \
        -e "s|/etc/nginx/llm/localhost|$run/localhost|" \
        -e "s|^http {|http {\n    access_log $run/access.log;\n    client_body_temp_path $run/body;\n    proxy_temp_path $run/proxy;\n    fastcgi_temp_path $run/fastcgi;\n    uwsgi_temp_path $run/uwsgi;\n    scgi_temp_path $run/scgi;|" \
        "$root/conf/nginx.conf" >"$run/nginx.conf"
    {
        [ "$uid" = 0 ] && echo "user www-data;"
        echo "pid $run/nginx.pid;"
        echo "error_log $run/error.log notice;"
    } >>"$run/nginx.conf"
}

start_engine() {
    group=
    [ "$uid" = 0 ] && group="--socket_group=www-data"
    # shellcheck disable=SC2086
    setsid "$build/llm-engine" -c "$root/conf/engine.conf" \
        --listen "$run/engine.sock" --device $device --model "$model" $group \
        >>"$run/engine.log" 2>&1 </dev/null &
    echo $! >"$run/engine.pid"
}

wait_ready() { # up to 5 minutes: a big model takes a while to load
    n=0
    until curl -fsS -o /dev/null "http://127.0.0.1:$port/ready" 2>/dev/null; do
        alive "$run/engine.pid" || {
            tail -n 3 "$run/engine.log" >&2
            stop_all
            die "The engine did not start; its log is $run/engine.log"
        }
        n=$((n + 1))
        [ $n -lt 3000 ] || { stop_all; die "Not ready after 5 minutes."; }
        sleep 0.1
    done
}

start_all() {
    [ -x "$build/llm-engine" ] || die "Run make first: no $build/llm-engine."
    if alive "$run/nginx.pid" || alive "$run/engine.pid"; then
        die "It is running already; make stop ends it."
    fi
    choose_model
    mkdir -p -m 755 "$run"
    [ -O "$run" ] || die "$run belongs to somebody else."
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
    name=$(curl -fsS "http://127.0.0.1:$port/v1/models" |
        sed 's/.*"data":\[{"id":"\([^"]*\)".*/\1/')
    cat <<TEXT
Ready: $name on http://localhost:$port and https://localhost:$tls_port
Try:

  curl -N http://localhost:$port/v1/completions -H 'Content-Type: application/json' \\
    -d '{"model":"$name","prompt":"Once upon a time","max_tokens":60,"stream":true}'

Logs: $run/*.log
TEXT
}

case "${1:-}" in
start)
    start_all
    echo "make stop ends it."
    ;;
stop)
    stop_all
    ;;
run)
    start_all
    echo "Ctrl-C ends it."
    trap 'trap "" INT TERM; stop_all; exit 0' INT TERM
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
