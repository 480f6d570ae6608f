#!/bin/bash
# tests/gpu/run.sh [all|correct|speed|peers]: what only a GPU can tell (make gpu).
#
#     correct   builds; each instruction's wrapper against what its manual says,
#               whole models beside the CPU, every op against plain C, and
#               compute-sanitizer over the small models where it is and works
#     speed     what the machine gives; steps of an 8B Llama and of a mixture of
#               experts; each op; with the part of the ceiling of the same run
#     peers     PyTorch's ops and transformers' continuous batching beside ours
#
# It needs nvcc, gcc, make, and python3 with torch and transformers for products'
# ceiling and peers; no network, no package of the distribution, no test data.
# A part takes LIMIT seconds at most (460, building included): rows come in the
# order of their worth, each is written when it is measured, and what there is
# no time for is skipped by name.  Results are in OUT (build/gpu):
#
#     correct.txt speed.txt peers.txt    rows, and at the end what was met
#     gpu-DATE.txt                       those that there are, in one
#     log.txt                            all else that was said
#
# With a GPU and no OUT the one is kept in tests/bench/results as well.  SIMT=1
# runs the same programs and this script on the emulator, at sizes that make no
# figure mean anything; its peers are those of PYTHON or, where there is one, of
# build/gpu-venv, a virtual environment with torch, transformers, psutil.
# Exit 1: something failed; 77: no nvcc, or no GPU.

set -u
cd "$(dirname "$0")/../.."
build=${BUILD:-build}
out=${OUT:-$build/gpu}
self=tests/gpu/run.sh
kind=${SIMT:+simt}
kind=${kind:-cuda}
limit=${LIMIT:-460}
home=${CUDA_HOME:-$(ls -d /usr/local/cuda /usr/local/cuda-* 2>/dev/null | head -n 1)}
[ -x "$home/bin/nvcc" ] || ! nvcc=$(command -v nvcc) ||
    home=$(dirname "$(dirname "$(readlink -f "$nvcc")")")
bin=$build/tests/gpu/$kind
python=${PYTHON:-python3}
failed=0

if [ $kind = cuda ]; then
    [ -x "$home/bin/nvcc" ] || {
        echo "gpu: there is no nvcc; SIMT=1 runs all of it on the emulator"
        exit 77
    }
    ls /dev/nvidia0 /dev/nvidiactl >/dev/null 2>&1 ||
        nvidia-smi -L >/dev/null 2>&1 || {
        echo "gpu: there is no GPU; SIMT=1 runs all of it on the emulator"
        exit 77
    }
else
    [ -r "$home/include/cuda_bf16.h" ] || {
        echo "gpu: there are no CUDA headers, which the emulator needs too"
        exit 77
    }
    [ -x "$build/gpu-venv/bin/python" ] && python=${PYTHON:-$build/gpu-venv/bin/python}
    export TINY=1
fi
export CUDA_HOME=$home
mkdir -p "$out"
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

left() { echo $((until - $(date +%s))); }

say() { echo "$*" | tee -a "$file"; }

begin() { # part
    file=$out/$1.txt
    until=$(($(date +%s) + limit))
    export GPU_UNTIL=$until
    {
        echo "command  make gpu PART=$1${SIMT:+ SIMT=1}"
        echo "commit   $(git rev-parse --short HEAD 2>/dev/null || echo unknown)$(git diff --quiet HEAD -- . ':!tests/bench/results' 2>/dev/null || echo ', changed')"
        echo "machine  $(nproc) cores, $(sed -n 's/^model name.*: //p' /proc/cpuinfo | sed -n 1p); $(nvidia-smi --query-gpu=name,driver_version --format=csv,noheader 2>/dev/null || echo 'no GPU')"
        echo "date     $(date -u '+%F %T'), $("$home/bin/nvcc" --version 2>/dev/null | sed -n 's/.*release \([0-9.]*\),.*/CUDA \1/p')"
        echo
    } | tee "$file"
}

# of correct: name, result, seconds, note
result() {
    printf '%s\t%s\t%s\t%s\n' "$@" | tee -a "$file"
}

# A command with so many seconds, or as many as are left: its row, whose note is
# the last line that it says.
try() { # name, seconds, command...
    local name=$1 box=$2 start=$SECONDS rc note why log
    shift 2
    log=$(mktemp "$tmp/XXXXXX")
    [ "$box" -le "$(left)" ] || box=$(left)
    if [ "$box" -lt 3 ]; then
        result "$name" skipped 0 "no time left"
        return 0
    fi
    timeout "$box" "$@" >"$log" 2>&1
    rc=$?
    { echo "== $name"; cat "$log"; } >>"$out/log.txt"
    note=$(grep -v '^$' "$log" | tail -n 1 | cut -c 1-200)
    if [ $rc -eq 0 ]; then
        result "$name" ok $((SECONDS - start)) "$note"
    elif [ $rc -eq 124 ]; then
        result "$name" skipped $((SECONDS - start)) "not done in $box s"
    elif grep -q 'Device not supported' "$log"; then
        result "$name" skipped $((SECONDS - start)) "it does not take this device"
    else # what says why may stand above the last line
        why=$(grep -m 1 -i 'error\|not so\|CUDA:' "$log" | cut -c 1-200)
        result "$name" FAILED $((SECONDS - start)) "exit $rc: ${why:-$note}"
        return 1
    fi
}

# warnings of other compilers than ours are not this run's business
build() {
    local one=
    if [ $kind = cuda ]; then # for this GPU alone, which takes half the time
        [ "$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | sed -n 1p)" != 9.0 ] ||
            one=-gencode=arch=compute_90a,code=sm_90a
        # SAN: the CPU is compared with only, and its vectors need not be fast
        make -s -j"$(nproc)" BUILD="$build" OPT='-O2 -g -Wno-error' SAN=-pthread \
            ${one:+CUDA_ARCH="$one"} gpu-cuda
    else
        make -s -j2 BUILD="$build" gpu-simt
    fi && echo "built"
}

# Is there something to run?  A build that was cut leaves nothing.
built() {
    try build 300 "$self" build && ! grep -q $'^build\tskipped' "$file" && return
    say "FAILED: it does not build, or not in time; $out/log.txt says more"
    failed=1
    return 1
}

# What the programs are made of includes and links no library that such a
# machine lacks.
alone() {
    local bad
    make -s BUILD="$build" gpu-sources | tr ' ' '\n' |
        xargs -P 4 -n 8 "${CC:-cc}" -std=c11 -D_GNU_SOURCE -mavx2 -Itests/gpu \
            -iquote engine -iquote kernels -M >"$tmp/includes" || return 1
    bad=$(tr -s ' \\' '\n\n' <"$tmp/includes" | sort -u | grep -E \
        '/(jansson|pcre2|utf8proc|jwt|openssl|nginx)|ngx_|/usr/.*/cmocka')
    [ -z "$bad" ] || { echo "includes" $bad; return 1; }
    ldd "$bin"/* "$build/tests/gpu/ops" >"$tmp/libraries" || return 1
    bad=$(grep -E '=>|not found' "$tmp/libraries" | awk '{print $1}' |
        grep -vE '^(libc|libm|libdl|libpthread|librt|libstdc\+\+|libgcc_s|linux-vdso)\.so' |
        sort -u)
    [ -z "$bad" ] || { echo "links $bad"; return 1; }
    echo "includes and links the C library and CUDA alone"
}

# All rows at their real sizes, computed by nobody: whether there is room for
# them, and whether the floors are those worked out by hand from the shapes, us.
sizes() {
    local at=$build/tests/gpu/null name want got
    export GPU_READ=4300 GPU_GEMM=790 GPU_UNTIL=
    for name in 8B 30B-A3B; do
        "$at/engine" $name || return 1
    done >"$tmp/sizes"
    "$at/engine" 8B streams 1 8 32 128 >>"$tmp/sizes" && "$at/kernels" >>"$tmp/sizes" || return 1
    while read -r want name; do
        got=$(awk -F '\t' -v n="$name" '$1 == n {print $6}' "$tmp/sizes")
        awk "BEGIN {exit !(${got:-0} / $want > 0.98 && ${got:-0} / $want < 1.02)}" ||
            { echo "$name: the floor is ${got:-not there}, expected $want us"; return 1; }
    done <<<"3520 8B decode b1 1k
37600 8B prefill 2k
935000 8B prefill 32k
5490 8B decode b8 8k
1440 30B-A3B decode b1 1k
13100 30B-A3B decode b32 1k
90000 30B-A3B prefill 8k
11.7 matmul qkv M 1
54.6 gate-up M 1
244 matmul last M 1"
    echo "$(wc -l <"$tmp/sizes") rows, floors as by hand"
}

ops() { # each by itself, some at a time
    local all long op n=0 most=4 lib=$build/llm_cuda.so
    all=$(sed -n '/define KERNELS(X)/,/^$/s/.*X(\([a-z_]*\), .*/\1/p' kernels/kernels.h)
    long="moe_ffn matmul gated attn headmul"
    [ $kind = cuda ] || {
        most=2 lib=$build/llm_cuda_simt.so long= all="embed gather copy"
        export LLM_BRIEF=1
    }
    for op in $long $(echo "$all" | grep -vxF "$(echo "$long" | tr ' ' '\n')"); do
        [ $n -lt $most ] || { wait -n || failed=1; n=$((n - 1)); }
        try "op $op" 240 "$build/tests/gpu/ops" "$lib" "$op" &
        n=$((n + 1))
    done
    while [ $n -gt 0 ]; do
        wait -n || failed=1
        n=$((n - 1))
    done
}

sanitizer() {
    local tool of sanitizer
    sanitizer=$(command -v compute-sanitizer || ls "$home/bin/compute-sanitizer" 2>/dev/null)
    [ -n "$sanitizer" ] || {
        result sanitizer skipped 0 "there is no compute-sanitizer"
        return
    }
    for tool in memcheck racecheck synccheck; do
        for of in tiny tiny-experts; do
            try "$tool $of" 90 "$sanitizer" --tool $tool --error-exitcode 9 \
                "$bin/agree" $of || failed=1
            ! grep -q 'not take this device' "$file" || return
        done
    done
}

correct() {
    begin correct
    say $'what\tresult\tseconds\tnote'
    built || return
    try 'libraries' 60 "$self" alone || failed=1
    try 'instructions' 60 "$bin/conform" || failed=1
    for of in tiny tiny-experts; do
        try "model $of" 200 "$bin/agree" $of || failed=1
    done
    if [ $kind = cuda ]; then
        for of in dense experts; do
            try "model $of" 200 "$bin/agree" $of || failed=1
        done
    else
        try "real sizes" 120 "$self" sizes || failed=1
    fi
    ops
    sanitizer
    echo >>"$file"
    say "$(grep -c $'\tok\t' "$file") ok, $(grep -c $'\tFAILED\t' "$file") failed, $(grep -c $'\tskipped\t' "$file") skipped"
}

# so many seconds of the part for what follows
within() { export GPU_UNTIL=$(($(date +%s) + $1)); [ "$GPU_UNTIL" -lt "$until" ] || export GPU_UNTIL=$until; }

# A program whose lines are rows; one that does not look at the time is cut.
rows() { # command...
    local rc box=$((GPU_UNTIL - $(date +%s)))
    [ "$box" -gt 1 ] || { say "skipped: no time left for $*"; return; }
    timeout $((box + 15)) "$@" 2>>"$out/log.txt" | tee -a "$file"
    rc=${PIPESTATUS[0]}
    case $rc in
    0) ;;
    124) say "skipped: no time for the rest of $*" ;;
    *) say "FAILED, exit $rc: $*" && failed=1 ;;
    esac
}

torch() { # says so where there is none
    "$python" -c 'import torch, transformers' >>"$out/log.txt" 2>&1 ||
        { say "skipped: $python has no torch and transformers${1:+: $1}"; false; }
}

ceilings() { # copy, read, gemm, for who measures parts of them
    rows "$bin/kernels" $tiny ceilings
    ! torch "parts are of 790 TFLOP/s" || rows "$python" tests/gpu/peers.py gemm
    GPU_READ=$(awk '$1 == "read" {print $2}' "$file")
    GPU_GEMM=$(awk '$1 == "gemm" {print $2}' "$file")
    export GPU_READ GPU_GEMM=${GPU_GEMM:-790}
}

shapes="8B 30B-A3B"
tiny=
[ $kind = cuda ] || shapes="tiny tiny-experts" tiny=tiny

speed() {
    begin speed
    built || return
    ceilings
    set -- $shapes
    say $'row\tus\t+-%\tGB/s\tTFLOP/s\tfloor_us\t%floor\ttarget\tverdict\tnote'
    within 150
    rows "$bin/engine" "$1"
    within 50
    GPU_OVERLAP=1 rows "$bin/engine" "$1" "decode b1 1k" "decode b128 1k"
    within 120
    rows "$bin/kernels" $tiny
    export GPU_UNTIL=$until
    rows "$bin/engine" "$2"
    echo >>"$file"
    say "targets met, and missed:"
    awk -F '\t' '$9 ~ /^(met|missed)$/ {
        printf "%-7s %-34s %s\n", $9, $1, $8 ~ /us/ ? $2 " us, " $8 : $7 " % of the floor, " $8
    }' "$file" | sort | tee -a "$file"
    say "$(grep -c $'\tskipped\t' "$file") rows skipped"
}

peers() {
    local counts="128 1 32 8"
    begin peers
    built || return
    [ $kind = cuda ] || counts="3 1"
    torch || return
    set -- $shapes
    within 120
    "$bin/engine" "$1" streams $counts 2>>"$out/log.txt" | tee "$tmp/streams" >>"$out/log.txt"
    grep -q streams "$tmp/streams" || { say "FAILED: $bin/engine $1 streams"; failed=1; }
    say $'row\tours_us\tpeer_us\tours_is_so_many_times_as_fast\tpeer'
    within 170
    rows "$python" tests/gpu/peers.py streams "$tmp/streams" $counts
    within 60
    "$bin/kernels" $tiny "matmul o M 1" "matmul qkv" gate-up "matmul down" "matmul last" \
        decode prefill 2>>"$out/log.txt" | tee "$tmp/ops" >>"$out/log.txt"
    export GPU_UNTIL=$until
    rows "$python" tests/gpu/peers.py ops "$tmp/ops"
    echo >>"$file"
    awk -F '\t' -v n="${counts%% *}" '$1 ~ " streams " n "$" && $4 != "" {
        print $1 ": " $4 " times transformers, target 3: " ($4 >= 3 ? "met" : "missed")
    }' "$file" | tee -a "$file"
}

case ${1:-all} in
all) parts="correct speed peers" ;;
correct | speed | peers) parts=$1 ;;
alone | build | sizes) $1; exit ;; # of the run that is under way
*) echo "usage: tests/gpu/run.sh [all|correct|speed|peers]"; exit 2 ;;
esac
rm -f "$out/log.txt"
for now in $parts; do
    $now
    one=$out/gpu-$(date +%F).txt
    for all in correct speed peers; do
        [ ! -r "$out/$all.txt" ] || { cat "$out/$all.txt"; echo; }
    done >"$one"
    [ -n "${OUT:-}" ] || [ $kind = simt ] || cp "$one" tests/bench/results/
done
exit $failed
