/* Memory for workspace and packed weights. */
#ifndef FASTLSTM_MEMORY_H
#define FASTLSTM_MEMORY_H

#include <stddef.h>

/* `size` bytes, aligned to 64 at least, or NULL; large ones in huge pages where the system has
 * them: weights that are read from one end to the other, step by step, otherwise miss the TLB and
 * crowd some sets of the L2. */
void *memory_take(size_t size);
void memory_free(void *memory);

#endif
