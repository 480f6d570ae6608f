#!/bin/bash
# tests/all.sh short|long: every part of the tests, with the time it took.
# A part that fails does not stop the others; the sum at the end decides.

set -u
cd "$(dirname "$0")/.."
mode=${1:-short}
build=${BUILD:-build}
summary=
passed=0
failed=0
log=$(mktemp)
trap 'rm -f "$log"' EXIT
export LLM_DATA=${LLM_DATA:-../shared/data}
[ -d "$LLM_DATA" ] || echo "No $LLM_DATA: tests that need its models skip."

part() { # name, command...
    local name=$1 start=$SECONDS rc skips
    shift
    echo
    echo "== $name"
    "$@" 2>&1 | tee "$log"
    rc=${PIPESTATUS[0]}
    # what the runners' closing lines say, and files that prove skips whole
    skips=$(sed -n -e 's/.*, \([0-9]*\) skipped$/\1/p' \
        -e 's/^t.*\.t \.* skipped: .*/1/p' <"$log" |
        awk '{n += $1} END {print n + 0}')
    if [ $rc -eq 0 ]; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
    fi
    summary+=$(printf '%-24s %-6s %4d s%s' "$name" \
        "$([ $rc -eq 0 ] && echo ok || echo FAILED)" $((SECONDS - start)) \
        "$([ "$skips" -eq 0 ] || echo ", $skips skipped")")$'\n'
}

quiet() { # shows the output only if the command fails
    local out
    out=$("$@" 2>&1) || { echo "$out"; return 1; }
}

mk() { # a build directory, make variables, targets...
    local dir=$1
    shift
    quiet make -s -j2 BUILD="$dir" "$@"
}

sanitized() { # unit tests under address and undefined behaviour sanitizers
    quiet tests/asan.sh unit-programs && LLM_BRIEF=1 tests/asan.sh unit
}

# what threads share, and no more, under the thread sanitizer, which sees
# nothing of what one thread does, or another process
threads() {
    local few
    few=$(printf "$build/tsan/%s.o " engine/{bell,inner,mem,req} \
        kernels/{comm,comm_shm})
    mk "$build/tsan" OPT="-O1 -g" SAN="-fsanitize=thread" LIB_O="$few" \
        "$build"/tsan/unit/{llm_ring,inner,comm} &&
        LLM_BRIEF=1 LLM_RING_TEST=threads tests/unit.sh \
            "$build"/tsan/unit/{llm_ring,inner,comm}
}

threads_all() { # whole models by threads that meet
    mk "$build/tsan-all" OPT="-O1 -g" SAN="-fsanitize=thread" \
        "$build/tsan-all/unit/ranks" &&
        LLM_BRIEF=1 tests/unit.sh "$build/tsan-all/unit/ranks"
}

corpora() { # every fuzz target over its seeds, sanitized
    tests/asan.sh replay >/dev/null
}

clang_builds() { # the module by the second compiler; the rest: asan.sh
    mk "$build/clang" CC=clang-14 "$build/clang/nginx/ngx_http_llm_module.so"
}

builds() { # side by side: nginx's configure keeps one core for long
    local rc
    clang_builds &
    mk "$build" all unit-programs "$build/fake_engine" "$build/hostile_worker"
    rc=$?
    wait $! && return $rc
}

part "build; module by clang" builds
part "tidy" make -s tidy
part "unit" make -s unit
part "unit, asan and ubsan" sanitized
part "unit, tsan" threads
part "fuzz corpora" corpora
part "doorbell model (spin)" make -s spin
part "simulator" make -s sim-check
part "CUDA, emulated" tests/cuda.sh "$mode"
part "server (t/)" make -s t
part "server, asan nginx" tests/asan-nginx.sh "$mode"
if [ "$mode" = long ]; then
    part "fuzz, 60 s each" make -s fuzz
    part "unit, tsan, ranks" threads_all
    part "grammars, jsonschema" tests/grammar_random.sh
    part "grammars, all tokenizers" env LLM_LONG=1 tests/unit.sh \
        "$build/unit/grammar_tokens" "$build/unit/grammar_mask"
    part "AVX-512, emulated" tests/simde.sh
    part "damaged, all of them" env LLM_LONG=1 tests/unit.sh "$build/unit/damaged"
    part "perplexity, all types" env LLM_LONG=1 tests/unit.sh "$build/unit/perplexity"
    part "server, tsan engine" tests/tsan-server.sh
    part "simulator, long" make -s sim
    part "slow readers, 60 s" env LLM_LONG=1 prove t/slow.t
    part "storm, chaos, hours" prove t/long/
fi

echo
printf '%s' "$summary"
echo "total $SECONDS s"
echo "$passed passed, $failed failed"
[ $failed -eq 0 ]
