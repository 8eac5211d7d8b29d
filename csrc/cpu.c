#include "cpu.h"

#include <string.h>

#if (defined(__x86_64__) || defined(__i386__)) && defined(__GNUC__)

#include <cpuid.h>

/* Register states that the operating system saves: a CPU may have AVX-512 and its system not. */
static unsigned saved_states(void)
{
    unsigned a, b, c, d, low, high;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE))
        return 0;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
}

#define YMM_STATES 0x06 /* XMM, YMM */
#define ZMM_STATES 0xe6 /* and opmask, upper halves, upper registers */

int cpu_supports(const char *isa)
{
    unsigned a, b, c, d, a7, b7, c7, d7;
    if (!strcmp(isa, "scalar"))
        return 1;
    if (!__get_cpuid(1, &a, &b, &c, &d))
        return 0;
    if (!strcmp(isa, "sse2"))
        return (d & bit_SSE2) != 0;
    if (!__get_cpuid_count(7, 0, &a7, &b7, &c7, &d7))
        return 0;
    const int avx2 = (b7 & bit_AVX2) && (c & bit_FMA) && (saved_states() & YMM_STATES) == YMM_STATES;
    if (!strcmp(isa, "avx2"))
        return avx2;
    const unsigned needed = bit_AVX512F | bit_AVX512DQ | bit_AVX512BW | bit_AVX512VL;
    if (!strcmp(isa, "avx512"))
        return avx2 && (b7 & needed) == needed && (saved_states() & ZMM_STATES) == ZMM_STATES;
    return 0;
}

void cpu_name(char *name)
{
    unsigned r[12] = {0};
    for (unsigned i = 0; i < 3; i++)
        if (!__get_cpuid(0x80000002 + i, &r[4 * i], &r[4 * i + 1], &r[4 * i + 2], &r[4 * i + 3]))
            break;
    memcpy(name, r, 48);
    name[48] = 0;
}

#else

int cpu_supports(const char *isa)
{
#if defined(__aarch64__)
    if (!strcmp(isa, "neon"))
        return 1;
#endif
    return !strcmp(isa, "scalar");
}

void cpu_name(char *name) { name[0] = 0; }

#endif
