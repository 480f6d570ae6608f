#!/bin/bash
# tests/bench/gateway.sh: what nginx and the module cost beside the null
# engine: latency of one request, and events drained per CPU second of one
# worker to many streams, unpaced and paced by step_min.  Prints one table;
# tests/bench/results/gateway-DATE.txt keeps it.

set -eu
cd "$(dirname "$0")/../.."
build=${BUILD:-build}
case $build in /*) ;; *) build=$PWD/$build ;; esac
port=${PORT:-18490}
clients=${CLIENTS:-2000}
seconds=${SECONDS_EACH:-5}
results=tests/bench/results/gateway-$(date +%F).txt
run=$(mktemp -d /tmp/ngx_llm-gateway.XXXXXX)
chmod 755 "$run"
make -s BUILD="${BUILD:-build}" all "${BUILD:-build}/bench/gateway"

stop() {
    for name in nginx engine; do
        [ -s "$run/$name.pid" ] || continue
        pid=$(cat "$run/$name.pid")
        kill -TERM "$pid" 2>/dev/null || true
        # --drain_timeout 0, so this is soon
        while kill -0 "$pid" 2>/dev/null; do sleep 0.05; done
        rm -f "$run/$name.pid"
    done
}
trap 'stop; rm -rf "$run"' EXIT

start() { # the engine's options
    group= user=
    [ "$(id -u)" = 0 ] && group="--socket_group=www-data" user="user www-data;"
    cat >"$run/nginx.conf" <<CONF
load_module $build/nginx/ngx_http_llm_module.so;
$user
pid $run/nginx.pid;
error_log $run/error.log;
worker_processes 1;
worker_rlimit_nofile 16384;
events { worker_connections 8192; }
http {
    access_log off;
    client_body_temp_path $run/body;
    proxy_temp_path $run/proxy;
    fastcgi_temp_path $run/fastcgi;
    uwsgi_temp_path $run/uwsgi;
    scgi_temp_path $run/scgi;
    keepalive_requests 1000000;
    llm_engine main { server unix:$run/engine.sock; reconnect 20ms 50ms; }
    server {
        listen 127.0.0.1:$port;
        location /v1/ { llm_pass main; }
        location = /ready { llm_health ready; }
    }
}
CONF
    # shellcheck disable=SC2086
    "$build/llm-engine" --listen "$run/engine.sock" --device null $group \
        --drain_timeout 0 --log_level error "$@" 2>"$run/engine.log" &
    echo $! >"$run/engine.pid"
    /usr/sbin/nginx -e "$run/error.log" -p "$run" -c "$run/nginx.conf"
    until curl -fsS -o "$run/ready" "http://127.0.0.1:$port/ready" 2>/dev/null
    do
        sleep 0.05
    done
    model=$(curl -fsS "http://127.0.0.1:$port/v1/models" |
        sed 's/.*"data":\[{"id":"\([^"]*\)".*/\1/')
    # Debian's nginx forks: the worker is the master's only child
    worker=$(cat "/proc/$(cat "$run/nginx.pid")/task/"*"/children" | tr -d ' ')
}

table() {
    echo "commit   $(git rev-parse --short HEAD)$(git diff --quiet HEAD || echo ', changed')"
    echo "machine  $(nproc) cores, $(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -n 1); load before: $(cut -d ' ' -f 1 /proc/loadavg)"
    echo "command  tests/bench/gateway.sh; one worker, null engine; CLIENTS=$clients SECONDS_EACH=$seconds"
    echo
    start
    "$build/bench/gateway" latency "$port" "$run/engine.sock" "$model" 5000
    stop
    echo
    printf '%-9s %7s %9s %6s %13s %15s %13s %12s\n' step_min streams \
        events/s cpu events/cpu-s events/user-s events/write bytes/event
    for pace in 0ms 20ms 100ms; do
        start --step_min $pace --batch_rows 4096 --batch_tokens 4096 \
            --requests 8192 --slots 4096 --event_ring 8m --kv_memory 1g
        printf '%-9s ' $pace
        "$build/bench/gateway" drain "$port" "$model" "$clients" "$seconds" \
            "$worker"
        stop
    done
    printf '%-9s ' 'floor'
    "$build/bench/gateway" floor "$clients" "$seconds"
    echo "(target > 200000 events per CPU second)"
}

mkdir -p "${results%/*}"
table | tee "$results"
[ "${PIPESTATUS[0]}" = 0 ]
