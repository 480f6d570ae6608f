#!/bin/bash
# tests/bench/gateway.sh: what nginx and the module cost, beside engines that
# compute nothing, against what the project holds itself to; and the same load
# on nginx's proxy_pass before a bare C responder, on that responder alone, and
# on an asyncio application under uvicorn.  Prints one table and keeps it in
# tests/bench/results/gateway-DATE.txt; with the argument "readme" it becomes
# the one in README.md.  About three minutes.
#
# DESIGN.  CPU time is the front end's own, from /proc, so the load clients do
# not count.  The engine is llm-engine's null device where it must be fast
# (events, requests), and tests/fake_engine where time is measured: only that
# one paces each stream for itself and says when it saw a request and wrote an
# event (gateway_latency.c, gateway_pace.c).  All servers run one process.  On a
# machine where others work too figures are worse, all of them: look at the
# peers and at the two floors, what bare hand-overs (relay.c) and bare writes
# (gateway_drain.c) take.

set -eu
cd "$(dirname "$0")/../.."
build=${BUILD:-build}
case $build in /*) ;; *) build=$PWD/$build ;; esac
port=${PORT:-18490} # and the nine behind it
streams=${STREAMS:-2000}
seconds=${SECONDS_EACH:-5}
rate=${RATE:-1000} # requests a second that are a tenth of what a worker can do
results=tests/bench/results/gateway-$(date +%F).txt
run=$(mktemp -d /tmp/ngx_llm-gateway.XXXXXX)
chmod 755 "$run"
tls=$((port + 1)) metered=$((port + 2)) sse=$((port + 3)) asgi=$((port + 4))
tools="gateway_latency gateway_pace gateway_drain gateway_requests gateway_idle sse relay"
# shellcheck disable=SC2086
make -s BUILD="${BUILD:-build}" all "${BUILD:-build}/fake_engine" \
    $(printf "${BUILD:-build}/bench/%s " $tools)
bench=$build/bench
key=sk-bench-$RANDOM$RANDOM$RANDOM

alive() { # a zombie is not
    grep -q '^State:.[^Z]' "/proc/$1/status" 2>/dev/null
}

stop() {
    for name in nginx engine sse relay asgi; do
        [ -s "$run/$name.pid" ] || continue
        pid=$(cat "$run/$name.pid")
        signal=TERM
        [ $name = asgi ] && signal=KILL # it would wait for its streams
        kill -$signal "$pid" 2>/dev/null || true
        # --drain_timeout 0, so this is soon; the fake one waits for its jobs
        while alive "$pid"; do sleep 0.05; done
        rm -f "$run/$name.pid"
    done
}
trap 'stop; rm -rf "$run"' EXIT

# --- servers ---------------------------------------------------------------

http() { # what every nginx here has in its http block
    echo "access_log off; keepalive_requests 1000000000; keepalive_timeout 600s;"
    for path in client_body proxy fastcgi uwsgi scgi; do
        echo "${path}_temp_path $run/$path;"
    done
}

main_conf() {
    [ "$(id -u)" = 0 ] && echo "user www-data;"
    echo "pid $run/nginx.pid; error_log $run/error.log;
        worker_processes 1; worker_rlimit_nofile 16384;
        events { worker_connections 8192; }"
}

listen() { # port, tls port
    echo "listen 127.0.0.1:$1 backlog=4096;
        listen 127.0.0.1:$2 ssl backlog=4096;
        ssl_certificate $run/tls.crt; ssl_certificate_key $run/tls.key;"
}

start_nginx() { # configuration on stdin, which port answers when it is up
    cat >"$run/nginx.conf"
    /usr/sbin/nginx -e "$run/error.log" -p "$run" -c "$run/nginx.conf"
    tries=200
    until curl -fsS -m 5 -o "$run/ready" "http://127.0.0.1:$1/ready" 2>/dev/null
    do
        tries=$((tries - 1))
        [ $tries -gt 0 ] || { cat "$run/error.log" "$run/engine.log" >&2; exit 1; }
        sleep 0.05
    done
    # nginx forks: the worker is the master's only child
    worker=$(cat "/proc/$(cat "$run/nginx.pid")/task/"*"/children" | tr -d ' ')
}

start_gateway() { # engine's command, but for its socket
    "$@" >"$run/engine.log" 2>&1 &
    echo $! >"$run/engine.pid"
    start_nginx "$port" <<CONF
load_module $build/nginx/ngx_http_llm_module.so;
$(main_conf)
http {
    $(http)
    llm_engine main { server unix:$run/engine.sock; reconnect 20ms 50ms; }
    llm_key_file $run/keys;
    llm_usage_log $run/usage.log;
    llm_tenant metered { tokens 1000000000; budget 1000000000 per=day; }
    server {
        $(listen "$port" "$tls")
        location /v1/ { llm_pass main; llm_auth off; }
        location = /ready { llm_health ready; }
    }
    server {
        listen 127.0.0.1:$metered;
        location /v1/ { llm_pass main; }
    }
}
CONF
}

null() { # the engine's options: the null device, room for all streams
    group=
    [ "$(id -u)" = 0 ] && group="--socket_group=www-data"
    # shellcheck disable=SC2086
    start_gateway "$build/llm-engine" --listen "$run/engine.sock" $group \
        --device null --model_name m --drain_timeout 0 --log_level error \
        --batch_rows 4096 --batch_tokens 4096 --requests 8192 --slots 4096 \
        --event_ring 8m --kv_memory 1g "$@"
}

fake() {
    start_gateway "$build/fake_engine" "$run/engine.sock" --model m \
        --slots 4096 "$@"
}

start_proxy() { # stock nginx before the responder
    start_nginx "$port" <<CONF
$(main_conf)
http {
    $(http)
    upstream sse { server 127.0.0.1:$sse; keepalive 64; }
    server {
        $(listen "$port" "$tls")
        client_body_buffer_size 1m;
        location /v1/ {
            proxy_pass http://sse;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
        }
        location = /ready { return 204; }
    }
}
CONF
}

start_sse() { # events a second
    (ulimit -n 20000; exec "$bench/sse" "$sse" "$1") &
    echo $! >"$run/sse.pid"
    sleep 0.2
}

asgi_there() { # uvicorn, from the package index, once
    venv=$build/venv-asgi
    "$venv/bin/python" -c 'import uvicorn, uvloop, httptools' 2>/dev/null ||
        { python3 -m venv "$venv" && "$venv/bin/pip" install -q \
            --disable-pip-version-check 'uvicorn[standard]'; } \
            >"$run/pip.log" 2>&1
}

start_asgi() {
    (ulimit -n 20000; RATE=$1 PYTHONPATH=tests/bench exec "$venv/bin/python" \
        -m uvicorn --port "$asgi" --log-level critical --backlog 4096 \
        --loop uvloop --http httptools asgi:app >"$run/asgi.log" 2>&1) &
    echo $! >"$run/asgi.pid"
    until curl -sS -o "$run/ready" "http://127.0.0.1:$asgi/" 2>/dev/null; do
        sleep 0.1
    done
}

# --- the table -------------------------------------------------------------

take() { # prefix, command that prints name=value...: variables prefix_name
    prefix=$1
    shift
    pairs=$("$@") || exit 1
    for pair in $pairs; do
        eval "${prefix}_${pair%%=*}=${pair#*=}"
    done
}

row() { # what, value, unit, < or >, limit
    awk -v what="$1" -v v="$2" -v unit="$3" -v op="$4" -v limit="$5" 'BEGIN {
        ok = op == "<" ? v + 0 < limit + 0 : v + 0 > limit + 0
        printf "%-46s %9s %9s %-8s %s\n", what, op " " limit, v, unit,
            ok ? "ok" : "MISSED" }'
}

less() { awk -v a="$1" -v b="$2" -v more="$3" 'BEGIN { print (a + 0 > b + more ? a : b + more) }'; }

latency() {
    fake --stamps
    take lat "$bench/gateway_latency" "$port" "$rate" "$seconds" "$worker"
    stop
    "$bench/relay" "$sse" &
    echo $! >"$run/relay.pid"
    sleep 0.2
    take hop "$bench/gateway_latency" "$sse" "$rate" "$seconds" \
        "$(cat "$run/relay.pid")"
    stop
}

paced() { # name, port, pids: 20 events a second, without and with bodies
    name=$1 at=$2
    shift 2
    take "${name}_q" "$bench/gateway_pace" "$at" "$streams" 20 "$seconds" 0 "$@"
    take "${name}_b" "$bench/gateway_pace" "$at" "$streams" 20 "$seconds" 1 "$@"
}

pace() {
    fake --stamps --rate 20 --tokens 1000000
    paced gw "$port" "$worker"
    stop
    start_sse 20
    paced bare "$sse" "$(cat "$run/sse.pid")"
    start_proxy
    paced proxy "$port" "$worker"
    stop
    if asgi_there; then
        start_asgi 20
        take asgi_r "$bench/gateway_requests" "$asgi" 32 2 "$(cat "$run/asgi.pid")"
        take asgi_q "$bench/gateway_pace" "$asgi" "$streams" 20 "$seconds" 0 \
            "$(cat "$run/asgi.pid")"
        stop
        start_asgi 20 # the first streams would go on
        take asgi_b "$bench/gateway_pace" "$asgi" "$streams" 20 "$seconds" 1 \
            "$(cat "$run/asgi.pid")"
        stop
    fi
}

drain() {
    for pace in 0 20 100; do
        null --step_min ${pace}ms
        take drain$pace "$bench/gateway_drain" stream "$port" "$streams" \
            "$seconds" "$worker"
        stop
    done
    take floor "$bench/gateway_drain" floor "$streams" "$seconds"
}

idle() {
    for over in 0 1; do
        at=$([ $over = 0 ] && echo "$port" || echo "$tls")
        fake --never-done
        take idle_gw$over "$bench/gateway_idle" "$at" "$streams" $over "$worker"
        stop
        start_sse 0
        start_proxy
        take idle_proxy$over "$bench/gateway_idle" "$at" "$streams" $over "$worker"
        stop
    done
}

requests() {
    null
    take plain "$bench/gateway_requests" "$port" 32 "$seconds" "$worker"
    take meter "$bench/gateway_requests" "$metered" 32 "$seconds" "$worker" "$key"
    stop
    start_sse 0
    start_proxy
    take req_proxy "$bench/gateway_requests" "$port" 32 2 "$worker"
    stop
}

pace_row() { # what, prefix
    for load in q b; do
        eval "p50=\${$2_${load}_p50:-}"
        [ -n "$p50" ] || continue
        for f in p99 p999 max events_s cpu_us bodies; do
            eval "$f=\$$2_${load}_$f"
        done
        printf '%-34s %6s %7s %7s %8s %7s %9s %9s\n' "$1" \
            "$([ $load = q ] && echo - || echo "$bodies")" \
            "$p50" "$p99" "$p999" "$max" "$events_s" "$cpu_us"
    done
}

table() {
    echo "commit   $(git rev-parse --short HEAD)$(git diff --quiet HEAD || echo ', changed')"
    echo "machine  $(nproc) cores, $(sed -n 's/^model name.*: //p' /proc/cpuinfo | sed -n 1p); load before: $(cut -d ' ' -f 1 /proc/loadavg)"
    echo "command  tests/bench/gateway.sh; STREAMS=$streams SECONDS_EACH=$seconds; one worker, $(/usr/sbin/nginx -v 2>&1 | sed 's/.*: //')"
    latency
    pace
    drain
    idle
    requests
    echo
    printf '%-46s %9s %9s\n' 'what' 'target' 'measured'
    row "added to a request, $rate/s, p50" "$lat_p50" us '<' 100
    row "added to a request, $rate/s, p99" "$lat_p99" us '<' 500
    row "$streams streams at 20/s, jitter p99" "$gw_q_p99" ms '<' \
        "$(less 5 "$bare_q_p99" 2)"
    row "the same, 1 MB posted each second" "$gw_b_p99" ms '<' \
        "$(less 5 "$bare_b_p99" 2)"
    row "events per CPU second, $streams streams" "$drain0_per_cpu_s" '' '>' 200000
    row "an idle stream" "$idle_gw0_kib" KiB '<' 24
    row "an idle stream, TLS" "$idle_gw1_kib" KiB '<' \
        "$(awk "BEGIN { print $idle_proxy1_kib + 13 }")"
    row "requests of 1 token per CPU second" "$plain_per_cpu_s" '' '>' 10000
    row "the same, key, metered tenant, usage log" "$meter_per_cpu_s" '' '>' 10000
    echo
    printf '%-46s %16s %16s %16s\n' "added latency, us, p50 and p99" \
        "in: to SUBMIT" "out: from EVENT" "both"
    for name in lat hop; do
        for f in in_p50 in_p99 out_p50 out_p99 p50 p99; do
            eval "$f=\$${name}_$f"
        done
        what="ngx_llm, $lat_n requests, worker $lat_load % busy"
        [ $name = hop ] && what="floor: two processes that only hand on"
        printf '%-46s %8s %7s %8s %7s %8s %7s\n' "$what" "$in_p50" "$in_p99" \
            "$out_p50" "$out_p99" "$p50" "$p99"
    done
    [ "$lat_late" = 0 ] || echo "$lat_late requests found no free connection"
    printf '%-46s %8s %7s %8s %7s\n' "ngx_llm, $streams streams at 20/s" - - \
        "$gw_q_out_p50" "$gw_q_out_p99"
    echo
    printf '%-34s %6s %7s %7s %8s %7s %9s %9s\n' "$streams streams at 20/s: jitter, ms" \
        bodies p50 p99 p99.9 max events/s CPU-us/ev
    pace_row "ngx_llm" gw
    pace_row "bare C responder" bare
    pace_row "nginx proxy_pass to it" proxy
    if [ -n "${asgi_q_p50:-}" ]; then
        pace_row "uvicorn, uvloop, httptools" asgi
    else
        echo "uvicorn: not to be had here"
    fi
    echo
    printf '%-34s %9s %6s %13s %11s %12s\n' "$streams streams, null engine" \
        events/s cpu events/cpu-s user-us/ev events/write
    for name in drain0 drain20 drain100 floor; do
        case $name in
        drain0) what="as fast as it can" ;;
        floor) what="floor: bare writes, each 20 ms" ;;
        *) what="a step each ${name#drain} ms" ;;
        esac
        for f in events_s cpu per_cpu_s user_us per_write; do
            eval "$f=\$${name}_$f"
        done
        printf '%-34s %9s %6s %13s %11s %12s\n' "$what" "$events_s" "$cpu" \
            "$per_cpu_s" "$user_us" "$per_write"
    done
    echo
    printf '%-34s %9s %9s %12s %12s\n' "the rest" "idle, KiB" "TLS, KiB" \
        "requests/s" "per cpu-s"
    printf '%-34s %9s %9s %12s %12s\n' \
        "ngx_llm" "$idle_gw0_kib" "$idle_gw1_kib" "$plain_requests_s" "$plain_per_cpu_s" \
        "ngx_llm, metered, usage log" - - "$meter_requests_s" "$meter_per_cpu_s" \
        "nginx proxy_pass of a constant" "$idle_proxy0_kib" "$idle_proxy1_kib" \
        "$req_proxy_requests_s" "$req_proxy_per_cpu_s" \
        "uvicorn, a constant" - - "${asgi_r_requests_s:--}" "${asgi_r_per_cpu_s:--}"
}

openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 \
    -subj /CN=localhost -keyout "$run/tls.key" -out "$run/tls.crt" 2>/dev/null
printf '%s bench metered\n' "$(printf %s "$key" | sha256sum | cut -d ' ' -f 1)" \
    >"$run/keys"
chmod 644 "$run/keys"
mkdir -p "${results%/*}"
table | tee "$results"
[ "${PIPESTATUS[0]}" = 0 ]

if [ "${1:-}" = readme ]; then
    awk -v table="$results" '
        /^```$/ { inside = 0 }
        !inside
        /^```gateway$/ {
            while ((getline line <table) > 0) print line
            inside = 1
        }' README.md >"$run/README.md"
    cat "$run/README.md" >README.md
fi
