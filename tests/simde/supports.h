/*
 * Says that the machine has AVX-512, its VNNI and BF16, and AVX-VNNI, for
 * kernels/cpu/cpu.c beside an emulation of them (tests/simde.sh).
 */
#ifndef SIMDE_SUPPORTS_H
#define SIMDE_SUPPORTS_H

#include <cpuid.h>

#define __builtin_cpu_supports(name)                                           \
    (__builtin_strncmp(name, "avx512", 6) == 0 || __builtin_cpu_supports(name))

#define __get_cpuid_count(leaf, sub, a, b, c, d)                               \
    (*(a) = 1u << 4, *(b) = *(c) = *(d) = 0, (leaf) == 7 && (sub) == 1)

#endif
