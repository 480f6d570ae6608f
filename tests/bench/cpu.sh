#!/bin/bash
# tests/bench/cpu.sh: the engine on the CPU beside llama.cpp, on models of the
# 1B and the 0.5B shape with random weights (cpu_model.py), each type of
# weights: prefill, decode of 1 to 32 streams together, beside what the memory
# and the instructions of this machine give in the same seconds (cpu.py); then
# both as whole servers (cpu_server.py).  Prints the tables and keeps them in
# tests/bench/results/cpu-DATE.txt.  llama.cpp is fetched and built once, under
# build/peer (peer.sh); models lie there too, 11 GB of them.
#
#     tests/bench/cpu.sh                  all of it: two hours
#     tests/bench/cpu.sh steps            without the servers
#     tests/bench/cpu.sh short            the same with fewer turns, five minutes
#                                         for each shape and type
#     tests/bench/cpu.sh server           nothing but them
#     tests/bench/cpu.sh cost             the engine alone: by threads, by
#                                         sequences, by op; no llama.cpp
#     tests/bench/cpu.sh quick            one shape, one type, one pair of
#                                         slices: a minute; keeps nothing
#     tests/bench/cpu.sh models           gets all that the others need
#
# SHAPES="1b 0.5b" and TYPES="F16 BF16 Q8_0 Q4_0 Q4_K_M" choose; quick takes
# the first of each, 0.5b and Q8_0 unless told.  CPUS=0,1 are the CPUs that all
# are pinned to, THREADS as many unless told; RESULTS the file that is written.
# On a machine that is never quiet CPUS=0 THREADS=1 gives the truest figures.

set -eu
cd "$(dirname "$0")/../.."
build=${BUILD:-build}
mode=${1:-all}
models=$build/peer/models
if [ "$mode" = quick ]; then
    shapes=${SHAPES:-0.5b} types=${TYPES:-Q8_0}
else
    shapes=${SHAPES:-1b 0.5b} types=${TYPES:-F16 BF16 Q8_0 Q4_0 Q4_K_M}
fi
CPUS=${CPUS:-$(taskset -cp $$ | sed 's/.*: //')}
THREADS=${THREADS:-$(taskset -c "$CPUS" nproc)}
export CPUS THREADS
results=${RESULTS:-tests/bench/results/cpu-$(date +%F).txt}

say() { echo "cpu.sh: $*" >&2; }

model() { # shape, type: makes it if it is not there, prints its path
    from=$models/$1-F16.gguf
    to=$models/$1-$2.gguf
    if [ ! -s "$from" ]; then
        say "making $from"
        python3 tests/bench/cpu_model.py "$from" "$1" >&2
    fi
    if [ ! -s "$to" ]; then
        say "making $to"
        nice -n 15 "$build/peer/bin/cpu_peer" quantize "$from" "$to.part" \
            "$2" "$THREADS" >"$build/peer/quantize.log"
        mv "$to.part" "$to"
    fi
    echo "$to"
}

header() {
    echo "commit   $(git rev-parse --short HEAD)$(git diff --quiet HEAD -- . ':!tests/bench/results' || echo ', changed')"
    echo "machine  $(nproc) cores, $(sed -n 's/^model name.*: //p' /proc/cpuinfo | sed -n 1p),$(
        for f in avx2 avx_vnni avx512f avx512_vnni avx512_bf16; do
            grep -qw $f /proc/cpuinfo && printf ' %s' $f
        done); load before: $(cut -d ' ' -f 1-3 /proc/loadavg)"
    echo "peer     $(cat "$build/peer/version")"
    echo "command  SHAPES=\"$shapes\" TYPES=\"$types\" CPUS=$CPUS THREADS=$THREADS tests/bench/cpu.sh $mode"
}

each() { # command that takes shape, type and file
    for shape in $shapes; do
        for type in $types; do
            file=$(model "$shape" "$type") || return 1
            echo
            "$@" "$shape" "$type" "$file" || return 1
            [ "$mode" = quick ] && return
        done
    done
    return 0
}

steps() { each python3 tests/bench/cpu.py "$build" "$1"; }
server() { each python3 tests/bench/cpu_server.py "$build"; }

case $mode in
all | server) tests/bench/peer.sh >/dev/null ;;
*)            tests/bench/peer.sh library >/dev/null ;;
esac
make -s BUILD="$build" all "$build/bench/cpu" "$build/bench/cpu_probe"

case $mode in
quick)  header; steps quick ;;
short | steps) { header; steps "$mode"; } | tee "$results" ;;
cost)   { header; steps cost; } | tee "$results" ;;
server) { header; server; } | tee "$results" ;;
all)    { header; steps steps && steps cost && server; } | tee "$results" ;;
models) each true ;;
*)      say "unknown: $mode"; exit 2 ;;
esac
# of what wrote the tables, not of tee
exit "${PIPESTATUS[0]}"
