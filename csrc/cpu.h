/* Which instruction sets this CPU and its operating system can use. */
#ifndef FASTLSTM_CPU_H
#define FASTLSTM_CPU_H

/* Whether `isa` ("avx512", "avx2", "sse2", "neon", "scalar"; "amx", "avx512bf16", "avx512vnni", "avxvnni")
 * can run here. Linux wants to be asked for AMX, which is done then. */
int cpu_supports(const char *isa);

/* Whether vdpbf16ps is slower here than to widen and multiply floats: 0.6 times as fast on a Xeon with AMX, as
 * against 2 times on Zen 4. */
int cpu_is_slow_in_bf16(void);

/* The CPU's own name, or "" where it does not tell. At least 49 bytes. */
void cpu_name(char *name);

#endif
