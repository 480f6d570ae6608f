#!/bin/sh
# tests/simt/attn.sh [plain|address|thread] [SEED ...]: builds the attention
# kernels for the host and runs tests/simt/attn.cu; under the address and
# undefined behaviour sanitizers, or under the thread sanitizer, which needs
# minutes and some cases in CASE.  Exit 77 where there are no CUDA headers.
set -eu
cd "$(dirname "$0")/../.."

how=${1:-plain}
[ $# -eq 0 ] || shift
cuda=${CUDA_HOME:-/usr/local/cuda}
[ -f "$cuda/include/cuda_bf16.h" ] || { echo "attn: no CUDA headers"; exit 77; }

build=${BUILD:-build}
out=$build/simt/attn-$how
case $how in
plain) san= below= ;;
address) san='-g -fsanitize=address,undefined -fno-sanitize-recover=undefined'
	below=$san ;;
thread) san='-g -fsanitize=thread -DSIMT_TSAN' below='-g -DSIMT_TSAN' ;;
esac

mkdir -p "$out"
all="-O1 -Wall -Wextra -Werror -Wno-unknown-pragmas -DATTN_PARTS=4
	-isystem $cuda/include -iquote engine -iquote kernels
	-iquote kernels/cuda -iquote tests/simt"

one() { # NAME FILE FLAGS...
	name=$1 file=$2
	shift 2
	${CXX:-g++} -std=c++17 $all "$@" -c -o "$out/$name.o" -x c++ "$file"
}

one decode kernels/cuda/attn_decode.cu $san &
one prefill kernels/cuda/attn_prefill.cu $san
wait $!
one attn tests/simt/attn.cu $san &
one fast kernels/cuda/attn_fast.cu $san
one rt tests/simt/rt_twin.cc $san
one simt tests/simt/simt.cc $below
${CC:-cc} -std=c11 $all $san -c -o "$out/plan.o" kernels/cuda/attn_plan.c
wait $!
${CXX:-g++} $san -o "$out/attn" "$out"/*.o "$build/liball.a" -lm -pthread
exec "$out/attn" "$@"
