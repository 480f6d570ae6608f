#!/bin/sh
# tests/asan.sh TARGET...: make, in build/asan under the address and undefined
# behaviour sanitizers.  Line numbers are all that a report needs of -g.  BUILD
# stays as it was given: make keeps dependencies by that name.

set -eu
cd "$(dirname "$0")/.."
exec make -s -j2 BUILD="${BUILD:-build}/asan" OPT="-O1 -g1" \
    SAN="-fsanitize=address,undefined -fno-sanitize-recover=undefined" "$@"
