/* Stands before the C library's allocator and pthread_create (LD_PRELOAD), to fill and to fail.
 *
 * FILL=1..3: what malloc gives is full of NaN, of denormals or of huge numbers.
 * fail_allocation(n, least): the n-th allocation of at least so many bytes from now on fails, once.
 * fail_threads(n): the next n threads cannot be started. Both are called by ctypes.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);

static atomic_long countdown, smallest, threads_to_fail;
static uint32_t pattern;

__attribute__((constructor)) static void begin(void)
{
    const uint32_t patterns[] = {0, 0x7fc00001, 0x00000001, 0x7f000000};
    const char *fill = getenv("FILL");
    pattern = fill ? patterns[fill[0] & 3] : 0;
}

/* As if nothing was left: arms the failure; n = 0 disarms. Returns what was left of the count. */
long fail_allocation(long n, long least)
{
    atomic_store(&smallest, least);
    return atomic_exchange(&countdown, n);
}

void fail_threads(long n) { atomic_store(&threads_to_fail, n); }

static int fails(size_t size)
{
    if (atomic_load(&countdown) <= 0 || size < (size_t)atomic_load(&smallest))
        return 0;
    return atomic_fetch_sub(&countdown, 1) == 1;
}

static void *filled(void *memory, size_t size)
{
    if (memory && pattern)
        for (size_t i = 0; i + 4 <= size; i += 4)
            memcpy((char *)memory + i, &pattern, 4);
    return memory;
}

void *malloc(size_t size)
{
    if (fails(size)) {
        errno = ENOMEM;
        return NULL;
    }
    return filled(__libc_malloc(size), size);
}

void *calloc(size_t n, size_t size)
{
    if (fails(n * size)) {
        errno = ENOMEM;
        return NULL;
    }
    return __libc_calloc(n, size);
}

void *realloc(void *memory, size_t size)
{
    if (fails(size)) {
        errno = ENOMEM;
        return NULL;
    }
    return __libc_realloc(memory, size);
}

int posix_memalign(void **memory, size_t alignment, size_t size)
{
    if (fails(size))
        return ENOMEM;
    *memory = filled(__libc_memalign(alignment, size), size);
    return *memory || !size ? 0 : ENOMEM;
}

void *aligned_alloc(size_t alignment, size_t size)
{
    void *memory;
    return posix_memalign(&memory, alignment, size) ? NULL : memory;
}

int pthread_create(
    pthread_t *thread, const pthread_attr_t *attributes, void *(*body)(void *), void *argument)
{
    static int (*next)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
    if (!next)
        next = (int (*)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *))
            dlsym(RTLD_NEXT, "pthread_create");
    if (atomic_load(&threads_to_fail) > 0 && atomic_fetch_sub(&threads_to_fail, 1) > 0)
        return EAGAIN;
    return next(thread, attributes, body, argument);
}
