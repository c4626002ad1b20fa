// Datagrams to journald (its native protocol). The log calls these, from any thread.
#ifndef PT_JOURNAL_H
#define PT_JOURNAL_H

#include <stddef.h>
#include <stdint.h>

// A datagram socket for pt_journal_send. fd or -errno.
int32_t pt_journal_open(void);
// Sends the entry to the socket at `path` without waiting: as a datagram, or, when it is too large for one, as a sealed
// memory file whose descriptor travels in its place. 0, or -errno (-EAGAIN: journald does not keep up).
int32_t pt_journal_send(int32_t fd, const char *path, const void *entry, size_t length);
// Whether standard error is the stream that the service manager leads to the journal: device and inode as
// $JOURNAL_STREAM names them.
int32_t pt_is_stderr(uint64_t device, uint64_t inode);

#endif
