#!/bin/sh
# tests/asan.sh TARGET...: make, in build/asan under the address and undefined
# behaviour sanitizers, by clang, which so judges all sources as the second
# compiler, and takes half of gcc's time.  Line numbers are all that a report
# needs of -g.  BUILD stays as it was given: make keeps dependencies by that
# name.

set -eu
cd "$(dirname "$0")/.."
exec make -s -j2 BUILD="${BUILD:-build}/asan" CC=clang-14 OPT="-O1 -g1" \
    SAN="-fsanitize=address,undefined -fno-sanitize-recover=undefined" "$@"
