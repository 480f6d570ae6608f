/*
 * Says that the machine has AVX-512, for kernels/cpu/cpu.c beside an emulation
 * of it (tests/simde.sh).
 */
#ifndef SIMDE_SUPPORTS_H
#define SIMDE_SUPPORTS_H

#define __builtin_cpu_supports(name)                                           \
    (__builtin_strncmp(name, "avx512", 6) == 0 || __builtin_cpu_supports(name))

#endif
