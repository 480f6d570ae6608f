#!/bin/bash
# tests/bench/load.sh [MODEL]: the whole server under the load generator, at
# 1, 8 and 32 clients, over TCP and TLS.  Prints machine, command and figures;
# results are kept in tests/bench/results/.

set -eu
cd "$(dirname "$0")/../.."
data=${LLM_DATA:-../shared/data}
model=${1:-$data/models/stories260K/stories260K.gguf}
load=${LLM_LOAD:-$data/../bench/load.py}
export PORT=${PORT:-18480} TLS_PORT=${TLS_PORT:-18443} MODEL=$model
tokens=${TOKENS:-128}

[ -r "$load" ] || { echo "no load generator at $load (LLM_LOAD)"; exit 77; }
trap 'conf/dev.sh stop' EXIT
conf/dev.sh start >/dev/null
name=$(curl -fsS "http://127.0.0.1:$PORT/v1/models" |
    sed 's/.*"data":\[{"id":"\([^"]*\)".*/\1/')

echo "commit   $(git rev-parse --short HEAD)"
echo "machine  $(nproc) cores, $(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -n 1)"
echo "command  load.py --ignore-eos --model $name --max-tokens $tokens --prompt-tokens 32"
for scheme in http https; do
    port=$PORT
    [ $scheme = https ] && port=$TLS_PORT
    for clients in 1 8 32; do
        python3 "$load" --url "$scheme://127.0.0.1:$port" --model "$name" \
            --concurrency $clients --requests $((clients * 8)) \
            --max-tokens "$tokens" --prompt-tokens 32 --ignore-eos --insecure \
            >/tmp/ngx_llm-load.$$ 2>&1 || { cat /tmp/ngx_llm-load.$$; exit 1; }
        echo "== $scheme, $clients clients"
        cat /tmp/ngx_llm-load.$$
        rm -f /tmp/ngx_llm-load.$$
    done
done
