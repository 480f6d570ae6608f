#!/bin/sh
# tests/simt/make.sh plain|address|thread TARGET...: make, of what runs on the
# emulator: as it is, under the address and undefined behaviour sanitizers, or
# under the thread sanitizer, for which each lane is a thread.  Targets are
# named from the build directory: build, build/simt-asan, build/simt-tsan.  By
# gcc, which sees 16 bytes at a place that is no multiple of it where clang does
# not.
set -eu
cd "$(dirname "$0")/../.."

how=$1 build=${BUILD:-build}
shift
dir=$build
case $how in
address)
	dir=$build/simt-asan
	san='-fsanitize=address,undefined -fno-sanitize-recover=undefined'
	;;
thread)
	dir=$build/simt-tsan
	san='-fsanitize=thread -DSIMT_TSAN'
	;;
esac
for t; do
	set -- "$@" "$dir/$t"
	shift
done

[ "$how" != plain ] || exec make -s -j2 "$@"
exec make -s -j2 BUILD="$dir" CC=gcc CXX=g++ OPT="-O1 -g1" SAN="$san" "$@"
