/* Products over panels with AVX-512 and VNNI: see avx512_panel.c. */
#define CPU_VNNI
#include "avx512_panel.c"
