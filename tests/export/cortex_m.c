/* What a Cortex-M needs before main: a vector table, and its floating-point unit switched on. */
extern void _start(void); /* of newlib */

static void reset(void)
{
    *(volatile unsigned *)0xE000ED88u |= 0xFu << 20; /* CPACR: full access to the FPU */
    __asm volatile("dsb\n\tisb");
    _start();
}

__attribute__((section(".vectors"), used))
static void *const vectors[2] = {(void *)0x20040000u, (void *)reset};
