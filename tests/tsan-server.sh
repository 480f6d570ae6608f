#!/bin/bash
# The server tests that strain the engine's threads, on an engine under the
# thread sanitizer; nginx and its module are the ordinary ones.  A race is a
# report in the engine's log, which fails the test that finds it there.
#
#   tests/tsan-server.sh [t/NAME.t...]

set -u
cd "$(dirname "$0")/.."
build=${BUILD:-build} # make keeps dependencies by the name it was given
[ $# -gt 0 ] || set -- t/api.t t/batch.t t/faults.t t/slow.t t/late.t t/workers.t

make -s -j2 BUILD="$build/tsan" OPT="-O1 -g" SAN=-fsanitize=thread \
    "$build/tsan/llm-engine" || exit 1
make -s -j2 BUILD="$build" "$build/nginx/ngx_http_llm_module.so" \
    "$build/fake_engine" "$build/hostile_worker" "$build/llm-top" || exit 1

case $build in /*) ;; *) build=$PWD/$build ;; esac
out=$build/tsan
nm "$out/llm-engine" | grep -q __tsan_ || {
    echo "the engine in $out is not built with the thread sanitizer"
    exit 1
}

# what the tests take from a build directory, with the engine changed
mkdir -p "$out/server"
ln -sfn "$build/nginx" "$out/server/nginx"
ln -sf "$out/llm-engine" "$build/fake_engine" "$build/hostile_worker" \
    "$build/llm-top" \
    "$out/server/"

TSAN_OPTIONS="${TSAN_OPTIONS:+$TSAN_OPTIONS }halt_on_error=0" \
    LLM_BUILD=$out/server prove "$@"
