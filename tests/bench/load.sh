#!/bin/bash
# tests/bench/load.sh [MODEL]: the whole server under the load generator, at
# 1, 8 and 32 clients, over TCP and TLS.  Prints machine, command and one
# table; tests/bench/results/load-DATE.txt keeps it.
#
# client: CPU seconds of the generator per second.  It is one thread, so near
# 1 its own speed is what was measured; on few cores it also takes what engine
# and nginx could have used.

set -eu
cd "$(dirname "$0")/../.."
data=${LLM_DATA:-../shared/data}
model=${1:-$data/models/stories260K/stories260K.gguf}
load=${LLM_LOAD:-$data/../bench/load.py}
export PORT=${PORT:-18480} TLS_PORT=${TLS_PORT:-18443} MODEL=$model
tokens=${TOKENS:-128}
results=tests/bench/results/load-$(date +%F).txt

[ -r "$load" ] || { echo "no load generator at $load (LLM_LOAD)"; exit 77; }
json=$(mktemp)
trap 'conf/dev.sh stop; rm -f "$json"' EXIT
conf/dev.sh start >/dev/null
name=$(curl -fsS "http://127.0.0.1:$PORT/v1/models" |
    sed 's/.*"data":\[{"id":"\([^"]*\)".*/\1/')

table() {
    echo "commit   $(git rev-parse --short HEAD)$(git diff --quiet HEAD || echo ', changed')"
    echo "machine  $(nproc) cores, $(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -n 1); load before: $(cut -d ' ' -f 1 /proc/loadavg)"
    echo "command  load.py --ignore-eos --model $name --max-tokens $tokens --prompt-tokens 32 --warmup 2 --concurrency C --requests (64 + 8 C)"
    echo "         times in ms"
    printf '%-6s %7s %9s %8s %8s %8s %8s %8s %7s\n' scheme clients tokens/s \
        TTFT-p50 TTFT-p99 ITL-p50 ITL-p99 errors client
    for scheme in http https; do
        port=$PORT
        [ $scheme = https ] && port=$TLS_PORT
        for clients in 1 8 32; do
            row $scheme $port $clients || return 1
        done
    done
}

row() { # scheme, port, clients
    python3 "$load" --url "$1://127.0.0.1:$2" --model "$name" \
        --concurrency "$3" --requests $((64 + $3 * 8)) --warmup 2 \
        --max-tokens "$tokens" --prompt-tokens 32 --ignore-eos --insecure \
        >"$json" 2>&1 || { cat "$json"; return 1; }
    python3 - "$1" "$3" "$json" <<'PY'
import json, sys
r = json.load(open(sys.argv[3]))
def ms(d, p): return "%8.2f" % (d[p] * 1e3)
print("%-6s %7s %9.0f %s %s %s %s %8d %7.2f" % (sys.argv[1], sys.argv[2],
    r["output_tok_per_s"], ms(r["ttft_s"], "p50"), ms(r["ttft_s"], "p99"),
    ms(r["itl_s"], "p50"), ms(r["itl_s"], "p99"), r["requests_failed"],
    r["client_cpu_share"]))
PY
}

mkdir -p "${results%/*}"
table | tee "$results"
[ "${PIPESTATUS[0]}" = 0 ]
