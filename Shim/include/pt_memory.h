// Memory for keys: locked, not dumped, wiped. And plain anonymous mappings for slabs and tables.
#ifndef PT_MEMORY_H
#define PT_MEMORY_H

#include <stddef.h>
#include <stdint.h>

// Anonymous zeroed mapping (MAP_NORESERVE: pages cost nothing until touched). NULL on failure.
void *pt_map(size_t length);
void pt_unmap(void *base, size_t length);
// mlock + MADV_DONTDUMP. 0 or -errno; the memory is usable either way.
int32_t pt_lock(void *base, size_t length);
// explicit_bzero.
void pt_wipe(void *base, size_t length);

// Relaxed and acquire/release access to words that another thread reads.
static inline uint64_t pt_load_relaxed(const uint64_t *word) { return __atomic_load_n(word, __ATOMIC_RELAXED); }
static inline void pt_store_relaxed(uint64_t *word, uint64_t value) { __atomic_store_n(word, value, __ATOMIC_RELAXED); }
static inline uint64_t pt_load_acquire(const uint64_t *word) { return __atomic_load_n(word, __ATOMIC_ACQUIRE); }
static inline void pt_store_release(uint64_t *word, uint64_t value) { __atomic_store_n(word, value, __ATOMIC_RELEASE); }

#endif
