#define _GNU_SOURCE /* syscall */
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

#if defined(__linux__) && defined(__x86_64__)
#include <sys/syscall.h>
#include <unistd.h>

/* AMX's registers of 8 kB are given to a process that asks for them; some systems refuse. */
static int amx_is_permitted(void)
{
    enum { GET = 0x1022, REQUEST = 0x1023, TILE_DATA = 18 };
    unsigned long permitted = 0;
    if (syscall(SYS_arch_prctl, GET, &permitted))
        return 0;
    if (permitted >> TILE_DATA & 1)
        return 1;
    if (syscall(SYS_arch_prctl, REQUEST, TILE_DATA) || syscall(SYS_arch_prctl, GET, &permitted))
        return 0;
    return permitted >> TILE_DATA & 1;
}
#else
static int amx_is_permitted(void) { return 0; }
#endif

#define YMM_STATES 0x06 /* XMM, YMM */
#define ZMM_STATES 0xe6 /* and opmask, upper halves, upper registers */
#define TILE_STATES 0x60000
/* of leaf 7 */
#define AVX512_VNNI (1u << 11) /* c */
#define AMX_BF16 (1u << 22)    /* d */
#define AMX_TILE (1u << 24)
#define AVX_VNNI (1u << 4)     /* a of its second part, as the next */
#define AVX512_BF16 (1u << 5)

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
    const int avx512 =
        avx2 && (b7 & needed) == needed && (saved_states() & ZMM_STATES) == ZMM_STATES;
    if (!strcmp(isa, "avx512"))
        return avx512;
    if (!strcmp(isa, "avx512vnni"))
        return avx512 && (c7 & AVX512_VNNI);
    if (a7 < 1 || !__get_cpuid_count(7, 1, &a, &b, &c, &d))
        return 0;
    if (!strcmp(isa, "avxvnni"))
        return avx2 && (a & AVX_VNNI);
    const int bf16 = avx512 && (a & AVX512_BF16);
    if (!strcmp(isa, "avx512bf16"))
        return bf16;
    if (!strcmp(isa, "amx"))
        return bf16 && (d7 & AMX_BF16) && (d7 & AMX_TILE)
            && (saved_states() & TILE_STATES) == TILE_STATES && amx_is_permitted();
    return 0;
}

int cpu_is_slow_in_bf16(void)
{
    unsigned a, b, c, d;
    return __get_cpuid(0, &a, &b, &c, &d) && b == signature_INTEL_ebx;
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

int cpu_is_slow_in_bf16(void) { return 0; }

void cpu_name(char *name) { name[0] = 0; }

#endif
