// Mappings for slabs and tables, locked memory for keys. See pt_memory.h.
#define _GNU_SOURCE
#include "pt_memory.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

void *pt_map(size_t length) {
    void *base = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return base == MAP_FAILED ? NULL : base;
}

void pt_unmap(void *base, size_t length) {
    if (base) munmap(base, length);
}

int32_t pt_lock(void *base, size_t length) {
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t start = (uintptr_t)base & ~(page - 1);
    uintptr_t end = ((uintptr_t)base + length + page - 1) & ~(page - 1);
    int32_t result = mlock(base, length) < 0 ? -errno : 0;
    if (madvise((void *)start, end - start, MADV_DONTDUMP) < 0 && result == 0) result = -errno;
    return result;
}

void pt_wipe(void *base, size_t length) { explicit_bzero(base, length); }
