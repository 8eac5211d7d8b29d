/* Memory for workspace and packed weights, and its sizes. */
#ifndef FASTLSTM_MEMORY_H
#define FASTLSTM_MEMORY_H

#include <stddef.h>
#include <stdint.h>

/* `size` bytes, aligned to 64 at least, or NULL; large ones in huge pages where the system has
 * them: weights that are read from one end to the other, step by step, otherwise miss the TLB and
 * crowd some sets of the L2. */
void *memory_take(size_t size);
void memory_free(void *memory);

/* Sizes that nobody has: a sum or product that does not fit into PTRDIFF_MAX, or what such a size
 * went into. memory_take refuses it. A negative ptrdiff_t is such a size too. */
#define NO_SIZE SIZE_MAX

static inline size_t size_times(size_t a, size_t b)
{
    return a > PTRDIFF_MAX || (b && a > PTRDIFF_MAX / b) ? NO_SIZE : a * b;
}

static inline size_t size_plus(size_t a, size_t b)
{
    return a > PTRDIFF_MAX || b > PTRDIFF_MAX - a ? NO_SIZE : a + b;
}

/* `size` rounded up to whole cache lines. */
static inline size_t size_padded(size_t size)
{
    return size_plus(size, 63) == NO_SIZE ? NO_SIZE : (size + 63) & ~(size_t)63;
}

/* The parts of one piece of memory lie side by side, where an overflow from one into the next would
 * be invisible to the address sanitizer. In its builds a gap follows each part, which is closed:
 * to touch it is an error that it reports. */
#if defined(__SANITIZE_ADDRESS__)
#define MEMORY_GAPS 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define MEMORY_GAPS 1
#endif
#endif

#ifdef MEMORY_GAPS
#include <sanitizer/asan_interface.h>
#define MEMORY_GAP ((size_t)64)
static inline void memory_open(void *memory, size_t size) { ASAN_UNPOISON_MEMORY_REGION(memory, size); }
static inline void memory_close(void *memory, size_t size) { ASAN_POISON_MEMORY_REGION(memory, size); }
#else
#define MEMORY_GAP ((size_t)0)
static inline void memory_open(void *memory, size_t size) { (void)memory; (void)size; }
static inline void memory_close(void *memory, size_t size) { (void)memory; (void)size; }
#endif

#endif
