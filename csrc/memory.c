#define _DEFAULT_SOURCE

#include "memory.h"

#include <stdlib.h>

#if defined(__unix__) || defined(__APPLE__)
#include <sys/mman.h>

#define CACHE_LINE 64
#define HUGE_PAGE ((size_t)2 << 20)

void *memory_take(size_t size)
{
    void *memory;
    const int huge = size >= HUGE_PAGE / 2;
    if (size > PTRDIFF_MAX)
        return NULL;
    if (huge)
        size = (size + HUGE_PAGE - 1) & ~(HUGE_PAGE - 1);
    if (posix_memalign(&memory, huge ? HUGE_PAGE : CACHE_LINE, size))
        return NULL;
#ifdef MADV_HUGEPAGE
    if (huge)
        madvise(memory, size, MADV_HUGEPAGE); /* advice: it may fail */
#endif
    return memory;
}

void memory_free(void *memory) { free(memory); }

#else
#include <malloc.h>

void *memory_take(size_t size) { return size > PTRDIFF_MAX ? NULL : _aligned_malloc(size, 64); }
void memory_free(void *memory) { _aligned_free(memory); }

#endif
