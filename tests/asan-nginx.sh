#!/bin/bash
# tests/asan-nginx.sh [short|long]
#
# The server tests on a whole nginx under AddressSanitizer with the module
# built in, before an engine under address and undefined behaviour sanitizers,
# which also looks for leaks when it ends; and the module built against a later
# version.  Long, that one is tested, too, and both are built by two
# compilers.  Sources come from Debian; where they cannot be fetched, that is
# said and counted, not hidden.

set -u
mode=${1:-short}
cd "$(dirname "$0")/.."
build=${BUILD:-build}
failed=0
skipped=0

# the engine and its stand-ins; nginx has the module built in
asan=$build/asan
case $build in /*) ;; *) build=$PWD/$build ;; esac
tests/asan.sh "$asan/llm-engine" "$asan/llm-top" "$asan/fake_engine" \
    "$asan/hostile_worker" || exit 1
export LLM_BUILD=$build/asan
# not the page, half a minute of a browser, nor the demo model's answers, as
# long of arithmetic: their requests to nginx are those of t/api.t; and not
# what is about engines, or about time
GLOBIGNORE=t/page.t:t/demo.t:t/golden.t:t/batch.t:t/engine.t:t/systemd.t
GLOBIGNORE+=:t/overload.t:t/successor.t:t/stopped.t:t/openai_client.t:t/slow.t
GLOBIGNORE+=:t/record.t:t/pinned.t:t/retry.t
GLOBIGNORE+=:t/clock.t:t/mtls.t:t/accounting.t:t/several.t:t/timers.t:t/models.t:t/late.t:t/top.t

passed() { # what, command...
    local what=$1 log
    shift
    if log=$("$@" 2>&1); then
        echo "ok $what"
    else
        echo "FAILED: $what"
        echo "$log" | tail -n 30
        failed=$((failed + 1))
        return 1
    fi
}

for suite in bookworm trixie; do
    src=$(tests/nginx-source.sh $suite) || {
        echo "skipped $suite: its nginx source cannot be fetched here"
        skipped=$((skipped + 1))
        continue
    }
    # .c sources are only read; each build has a tree of its own
    out=$build/asan-nginx-$suite
    cc=gcc other=clang-14
    [ $suite = trixie ] && cc=clang-14 other=gcc
    if [ $suite = trixie ] || [ "$mode" = long ]; then
        passed "${src##*/}, the module alone by $other" \
            env CC=$other conf/build-module.sh "$build/module-$suite" "$src"
    fi
    [ $suite = bookworm ] || [ "$mode" = long ] || continue
    passed "${src##*/} with the module built in by $cc" \
        env STATIC=1 CC=$cc conf/build-module.sh "$out" "$src" || continue
    LLM_NGINX=$out/nginx prove -j3 --timer t/*.t || failed=$((failed + 1))
done

echo "asan nginx: $failed failed, $skipped skipped"
[ $failed -eq 0 ]
