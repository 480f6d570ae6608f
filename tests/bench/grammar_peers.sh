#!/bin/bash
# tests/bench/grammar_peers.sh: grammars of JSON schemas beside xgrammar's and
# llguidance's, which come from the package index into build/venv-peers: the
# time to compile each schema of the maskbench and of a mask for each token of
# its instances, what is accepted that is wrong and refused that is right, and
# memory.  One thread, the vocabulary of qwen3.  Prints it and keeps it in
# tests/bench/results/grammar-DATE.txt.  A quarter of an hour of processor time,
# nearly all of it xgrammar's, most of that with strict_mode off; and 2 GB of
# disk for what the peers need.
#
# EVERY=n takes each n-th schema (and keeps nothing); ENGINES="ngx_llm xgrammar
# loose llguidance" is all, loose being xgrammar with strict_mode off; XGRAMMAR,
# LLGUIDANCE and TORCH are versions; LLM_DATA as elsewhere.

set -eu
cd "$(dirname "$0")/../.."
build=${BUILD:-build}
venv=$build/venv-peers
data=${LLM_DATA:-../shared/data}
xgrammar=${XGRAMMAR:-0.2.8}
llguidance=${LLGUIDANCE:-1.9.1}
torch=${TORCH:-2.13.0}

[ -d "$data/structured-output/maskbench" ] || {
    echo "skipped: $data has no structured-output/maskbench"
    exit 0
}
make -s BUILD="$build" "$build/bench/grammar"
[ -x "$venv/bin/pip" ] || python3 -m venv "$venv"
"$venv/bin/pip" install -q --disable-pip-version-check "torch==$torch" \
    "xgrammar==$xgrammar" "llguidance==$llguidance" numpy tokenizers >&2

header() {
    echo "commit   $(git rev-parse --short HEAD)$(git diff --quiet HEAD -- . ':!tests/bench/results' || echo ', changed')"
    echo "machine  $(nproc --all) cores, $(sed -n 's/^model name.*: //p' /proc/cpuinfo | sed -n 1p); load before: $(cut -d ' ' -f 1-3 /proc/loadavg)"
    echo "peers    xgrammar $xgrammar, llguidance $llguidance"
    echo "command  ${EVERY:+EVERY=$EVERY }${ENGINES:+ENGINES=\"$ENGINES\" }tests/bench/grammar_peers.sh"
    echo
}

keep() {
    if [ -z "${EVERY:-}" ]; then
        tee "tests/bench/results/grammar-$(date +%F).txt"
    else
        cat
    fi
}

# threads of libraries would be counted, and are not what is compared
export OMP_NUM_THREADS=1 RAYON_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false
{
    header
    "$venv/bin/python" tests/bench/grammar_peers.py "$build" "$data"
} | keep
exit "${PIPESTATUS[0]}"
