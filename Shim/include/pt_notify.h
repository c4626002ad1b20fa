// What the service manager of a machine says and hears: sd_notify(3), descriptors that outlive the process. Used by
// ServiceManager.
#ifndef PT_NOTIFY_H
#define PT_NOTIFY_H

#include <stddef.h>
#include <stdint.h>

// Sends one datagram to the Unix socket at `path` (`@name`: abstract), with a copy of `fd` unless it is negative. Waits
// at most a second for a full queue. 0 or -errno.
int32_t pt_notify(const char *path, const void *bytes, size_t length, int32_t fd);

// Takes over a descriptor that somebody else opened: close-on-exec, so that no child keeps it. 0, or -errno when there
// is none of that number.
int32_t pt_fd_take(int32_t fd);

// A file in memory, read and written as a whole. Descriptor or -errno.
int32_t pt_memory_file(const char *name);
// 0 or -errno.
int32_t pt_memory_file_write(int32_t fd, const void *bytes, size_t length);
// Bytes read (at most `length`), or -errno; -EINVAL when the descriptor is no regular file.
int64_t pt_memory_file_read(int32_t fd, void *bytes, size_t length);

#endif
