#!/bin/sh
# tests/fuzz.sh TARGET...: libFuzzer with address and undefined sanitizers,
# SECONDS_EACH (60) seconds each, no single allocation above 64 MiB, starting
# from tests/data/fuzz/TARGET and what tests/seeds.sh names.  What it finds on
# the way stays under build/.

set -eu
cd "$(dirname "$0")/.."
build=${BUILD:-build}/libfuzzer
seconds=${SECONDS_EACH:-60}
san="-fsanitize=address,undefined -fno-sanitize-recover=undefined"

make -s -j2 BUILD="$build" CC=clang-14 OPT="-O1 -g" \
    SAN="$san -fsanitize=fuzzer-no-link" "$build/liball.a"

for target in "$@"; do
    clang-14 -std=c11 -D_GNU_SOURCE -O1 -g $san -fsanitize=fuzzer \
        -iquote engine -iquote kernels -iquote ngx_module/dialect \
        -iquote ngx_module/tenant -o "$build/fuzz-$target" \
        "tests/fuzz/$target.c" "$build/liball.a" -ljansson -lpcre2-8 -lutf8proc -lcrypto -lm \
        -pthread
    mkdir -p "$build/corpus-$target"
    echo "== $target, $seconds s"
    # shellcheck disable=SC2046
    "$build/fuzz-$target" -max_total_time="$seconds" -rss_limit_mb=2048 \
        -malloc_limit_mb=64 \
        -timeout=10 -print_final_stats=0 -verbosity=0 \
        -artifact_prefix="$build/crash-$target-" \
        "$build/corpus-$target" "tests/data/fuzz/$target" \
        $(tests/seeds.sh "$target")
    echo "ok $target"
done
