#!/bin/bash
# tests/simde.sh: the tests of kernels and of whole models with AVX-512, with the
# VNNI of both widths, and with BF16, on a machine that lacks them.  Their files in
# kernels/cpu are built over SIMDe (tests/simde/immintrin.h), which computes in C
# what each intrinsic says, and go before the library's own; all else is what
# make has built.

set -u
cd "$(dirname "$0")/.."
build=${BUILD:-build}
out=$build/simde
mkdir -p "$out"

skip() {
    echo "skipped: $*"
    echo "0 passed, 0 failed, 1 skipped"
    exit 0
}

[ -f /usr/include/simde/x86/avx512.h ] || skip "libsimde-dev is not installed"
grep -qw avx2 /proc/cpuinfo || skip "this machine lacks AVX2, which the tests compare with"

make -s -j2 BUILD="$build" "$build/liball.a" || exit 1
flags="-std=c11 -D_GNU_SOURCE -Wall -Wextra -Werror -O1 -g -pthread
    -ffp-contract=off -iquote engine -iquote kernels"
objects=
# what is a constant in there need not be one, or an hour goes by compiling;
# vectors wider than the machine's go by another ABI, within one file alone
for file in avx512 avx512_panel avx512vnni_panel avx512bf16_panel avxvnni_panel; do
    isa=
    [ "$file" = avxvnni_panel ] && isa="-mavx2 -mfma -mf16c"
    # shellcheck disable=SC2086
    cc $flags $isa -Wno-psabi -I tests/simde '-DCPU_HERE(v)=' -DUNROLL= \
        '-DALWAYS=static inline __attribute__((unused))' -c \
        -o "$out/$file.o" "kernels/cpu/$file.c" || exit 1
    objects+=" $out/$file.o"
done
# shellcheck disable=SC2086
cc $flags -include tests/simde/supports.h -c -o "$out/cpu.o" \
    kernels/cpu/cpu.c || exit 1

programs=
for name in kernels/isa kernels/panel kernels/ops unit/forward_types unit/families; do
    # shellcheck disable=SC2086
    cc $flags -o "$out/${name##*/}" "tests/$name.c" $objects \
        "$out/cpu.o" "$build/liball.a" -lcmocka -ljansson -lpcre2-8 \
        -lutf8proc -lcrypto -lm || exit 1
    programs+=" $out/${name##*/}"
done

# a test that is skipped was not emulated, and so nothing was tested
# shellcheck disable=SC2086
tests/unit.sh $programs | tee "$out/log"
[ "${PIPESTATUS[0]}" -eq 0 ] && tail -n 1 "$out/log" | grep -q ' 0 skipped$'
