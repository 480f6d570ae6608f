/* Products over panels with AVX2, FMA and AVX-VNNI: see avx2_panel.c. */
#define CPU_VNNI
#include "avx2_panel.c"
