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

# t/workers.t takes longest: first, so that nothing waits for it alone
longest=t/workers.t
GLOBIGNORE+=:$longest

# .c sources are only read; each build has a tree of its own
module() { # suite, source, compiler
    env CC=$3 conf/build-module.sh "$build/module-$1" "$2"
}

whole() {
    env STATIC=1 CC=$3 conf/build-module.sh "$build/asan-nginx-$1" "$2"
}

# Builds begun in the background, as nginx's configure keeps one core for long
# and make the other: their output is in $logs, and how they ended.
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT

begin() { # name, command...
    local name=$1
    shift
    { "$@" >"$logs/$name" 2>&1; echo $? >"$logs/$name.rc"; } &
}

passed() { # name of one that has ended, what it was
    if [ "$(cat "$logs/$1.rc")" = 0 ]; then
        echo "ok $2"
    else
        echo "FAILED: $2"
        tail -n 30 "$logs/$1"
        failed=$((failed + 1))
        return 1
    fi
}

declare -A src cc=([bookworm]=gcc [trixie]=clang-14)
declare -A other=([bookworm]=clang-14 [trixie]=gcc)
for suite in bookworm trixie; do
    src[$suite]=$(tests/nginx-source.sh $suite) || {
        echo "skipped $suite: its nginx source cannot be fetched here"
        skipped=$((skipped + 1))
        src[$suite]=
        continue
    }
    if [ $suite = bookworm ] || [ "$mode" = long ]; then
        begin whole-$suite whole $suite "${src[$suite]}" ${cc[$suite]}
    fi
    if [ $suite = trixie ] || [ "$mode" = long ]; then
        begin module-$suite module $suite "${src[$suite]}" ${other[$suite]}
    fi
done
wait

for suite in bookworm trixie; do
    [ -z "${src[$suite]}" ] && continue
    name=${src[$suite]##*/}
    if [ -f "$logs/module-$suite.rc" ]; then
        passed module-$suite "$name, the module alone by ${other[$suite]}"
    fi
    [ -f "$logs/whole-$suite.rc" ] || continue
    passed whole-$suite "$name with the module built in by ${cc[$suite]}" ||
        continue
    LLM_NGINX=$build/asan-nginx-$suite/nginx prove -j5 --timer $longest t/*.t ||
        failed=$((failed + 1))
done

echo "asan nginx: $failed failed, $skipped skipped"
[ $failed -eq 0 ]
