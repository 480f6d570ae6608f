#!/bin/bash
# tests/bench/real.sh: engine and nginx on a model of Qwen2.5-0.5B's shape with
# random weights (real_model.py): whether steps keep to step_target while a 4k
# prompt arrives among 8 streams, and what other policies do to the streams;
# what a shared prefix saves; whether texts are the same however they were
# computed.  Prints it and keeps it in tests/bench/results/real-DATE.txt.
# About five minutes on two quiet cores, longer on busy ones.  Exit 1: a step
# was too long by the engine's own fault, or texts differ.
#
#     tests/bench/real.sh cost    measures what steps take instead, three
#                                 minutes, and makes tests/sim/cpu.cost of it
#
# SHAPE=small tries all of it on a model of a hundredth of the size (and keeps
# nothing); TARGET=MS sets the step's target, else it is four times a decode
# step of 8 rows; PORT, LLM_DATA as elsewhere.

set -eu
cd "$(dirname "$0")/../.."
build=${BUILD:-build}
shape=${SHAPE:-real}
model=$build/model-$shape
make -s BUILD="$build" all "$build/bench/steps" "$build/bench/fit"
python3 tests/bench/real_model.py "$model" "$shape"

header() {
    echo "commit   $(git rev-parse --short HEAD)$(git diff --quiet HEAD -- . ':!tests/bench/results' || echo ', changed')"
    echo "machine  $(nproc) cores, $(sed -n 's/^model name.*: //p' /proc/cpuinfo | sed -n 1p); load before: $(cut -d ' ' -f 1-3 /proc/loadavg)"
    echo "command  $*"
}

keep() { # file
    if [ "$shape" = real ]; then tee "$1"; else cat; fi
}

if [ "${1:-}" = cost ]; then
    table=tests/sim/cpu.cost
    [ "$shape" = real ] || table=$build/cpu-$shape.cost
    header "tests/bench/real.sh cost" >"$build/cost.head"
    "$build/bench/steps" "$model" "${SECONDS_EACH:-150}" >"$build/cost.steps"
    "$build/bench/fit" "$build/cost.table" <"$build/cost.steps" >"$build/cost.fit"
    { sed 's/^/# /' "$build/cost.head"; cat "$build/cost.table"; } >"$table"
    cat "$build/cost.head" "$build/cost.fit" |
        keep "tests/bench/results/cost-$(date +%F).txt"
else
    { header "tests/bench/real.sh; a model of $(stat -c %s "$model/model.safetensors") bytes, F16, random weights"
      python3 tests/bench/real.py "$build" "$model"; } |
        keep "tests/bench/results/real-$(date +%F).txt"
fi
# of what wrote the table, not of tee
exit "${PIPESTATUS[0]}"
