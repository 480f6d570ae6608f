#!/bin/bash
# tests/cuda.sh [short|long]: CUDA's back end without a GPU.  Where there is a
# toolkit, what its compiler tells of the kernels (tests/simt/gates.sh); where
# there are its headers, the kernels on the emulator: the emulator's own test,
# each instruction alone, the ops beside plain C, the whole engine beside the
# CPU's, in orders that a seed draws.  Long: all ops by several seeds and under
# the sanitizers, and errors put into the kernels, each of which must be found.
# What cannot be done here, or not in short, is said, and counted.
#
# Parts run two or three at a time: a program here is one thread, mostly.

set -u
cd "$(dirname "$0")/.."
export BUILD=${BUILD:-build}
mode=${1:-short}
home=$(ls -d /usr/local/cuda /usr/local/cuda-* 2>/dev/null | head -n 1)
export CUDA_HOME=${CUDA_HOME:-$home}
passed=0
failed=0
skipped=0
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT

skip() {
    echo "skipped: $1"
    skipped=$((skipped + 1))
}

# A part, which goes on beside the others: name, command...  What it says is
# shown by parts_end, in the order of their begin.
parts=()
part() {
    local log=$logs/${#parts[@]}
    parts+=("$1")
    shift
    (
        SECONDS=0
        "$@" >"$log" 2>&1
        echo "$? $SECONDS" >"$log.rc"
    ) &
}

parts_end() {
    local i rc seconds
    wait
    for i in "${!parts[@]}"; do
        read -r rc seconds <"$logs/$i.rc"
        if [ "$rc" -eq 0 ]; then
            echo "ok ${parts[$i]} ($seconds s)"
            grep -v '^\[' "$logs/$i" | sed 's/^/    /'
            passed=$((passed + 1))
        else
            echo "FAILED ${parts[$i]} ($seconds s)"
            cat "$logs/$i"
            failed=$((failed + 1))
        fi
    done
    parts=()
}

finish() {
    echo "$passed passed, $failed failed, $skipped skipped"
    [ $failed -eq 0 ]
    exit
}

# How it is built (tests/simt/make.sh), the emulator's seed and threads, what of
# it, and what that is given.
run() {
    local how=$1 dir=$BUILD
    export LLM_SIMT_SEED=$2 LLM_SIMT_THREADS=$3
    case $how in
    address) dir=$BUILD/simt-asan ;;
    thread) dir=$BUILD/simt-tsan ;;
    esac
    shift 3
    case $1 in
    words)
        tests/simt/check.sh "$dir/simt/check" "$how" && "$dir/simt/conform"
        ;;
    attn) "$dir/simt/attn" "$LLM_SIMT_SEED" ;;
    ops)
        shift
        LLM_BRIEF=1 "$dir/kernels/ops" "$dir/llm_cuda_simt.so" "$@"
        ;;
    engine | replay | meet)
        [ "$1" = engine ] && dir+=/simt/engine || dir+=/kernels/$1
        shift
        "$dir" "${dir%/*/*}/llm_cuda_simt.so" "$@"
        ;;
    errors) make -s -j2 BUILD="$dir" "$dir/llm-engine" && tests/simt/errors.sh ;;
    esac
}

build() {
    local attn=
    [ "$mode" = short ] || attn=simt/attn
    tests/simt/make.sh "$1" llm_cuda_simt.so kernels/ops kernels/replay \
        kernels/meet simt/engine simt/conform simt/check $attn || exit 1
}

gates() {
    tests/simt/gates.sh "$mode"
}

# all but moe_ffn, which takes as long as they
ops=$(sed -n '/^#define KERNELS/,/^$/s/^ *X(\([a-z_]*\),.*/\1/p' \
    kernels/kernels.h | grep -v moe_ffn)

short() {
    build plain
    part "instructions and emulator" run plain 0 1 words
    part "the engine" run plain 1 1 engine all
    part "ops, seed 1" run plain 1 1 ops gated headmul rope_store attn \
        comm_gather
    part "steps recorded and replayed" run plain 0 1 replay mixtral
    part "ranks that meet" run plain 1 1 meet
    part "errors of a GPU" run plain 0 1 errors
    parts_end
    skip "ops that the engine's test has as well: the other eleven"
    skip "other seeds and models, sanitizers, planted errors: make test-all"
}

long() {
    local how seed
    build plain
    for seed in 0 1 2 3; do
        part "ops, seed $seed" run plain $seed $((1 + seed % 2)) ops $ops
        part "attention's kernels, seed $seed" run plain $seed 1 attn
        parts_end
    done
    part "moe_ffn" run plain 1 1 ops moe_ffn
    part "the engine, seed 2" run plain 2 2 engine
    part "steps recorded and replayed" run plain 0 1 replay mixtral qwen3 \
        gemma3 deepseek2-lite gpt-oss
    part "ranks that meet" run plain 2 2 meet
    part "errors of a GPU" run plain 0 1 errors
    parts_end
    SIMT=1 OUT=$BUILD/gpu-simt part "make gpu's programs" tests/gpu/run.sh
    parts_end

    for how in address thread; do
        build $how
        part "instructions and emulator, $how" run $how 0 1 words
        part "ops, $how" run $how 1 2 ops $ops
        part "ranks that meet, $how" run $how 1 2 meet
        LLM_EACH=5 part "moe_ffn, $how" run $how 1 2 ops moe_ffn
        parts_end
    done
    CASE=parts part "attention's kernels, thread" run thread 1 2 attn
    part "the engine, address" run address 3 1 engine all
    parts_end
    part "attention's kernels, address" run address 3 1 attn
    parts_end
    part "planted errors" tests/simt/plant.sh
    parts_end
}

if [ -x "$CUDA_HOME/bin/nvcc" ]; then
    [ "$mode" = short ] || make -s -j2 cuda || exit 1
    part "compiled for a GPU" gates
else
    skip "no nvcc: nothing is compiled for a GPU"
fi

if [ ! -r "$CUDA_HOME/include/cuda_bf16.h" ]; then
    parts_end
    skip "no CUDA headers: no kernel is run on the emulator"
    finish
fi

$mode
finish
