// eventfd, poll, clocks, capability and credential questions.
#ifndef PT_SYSTEM_H
#define PT_SYSTEM_H

#include <stddef.h>
#include <stdint.h>

// Nanoseconds of CLOCK_MONOTONIC / CLOCK_BOOTTIME.
uint64_t pt_monotonic(void);
uint64_t pt_boottime(void);

// A descriptor that becomes readable when the wall clock jumps, as it does when the machine wakes up from sleep
// (TFD_TIMER_CANCEL_ON_SET). Descriptor or -errno; after each jump it is armed again.
int32_t pt_clock_watch(void);
int32_t pt_clock_watch_again(int32_t fd);

int32_t pt_eventfd(void);
void pt_eventfd_signal(int32_t fd);
void pt_eventfd_drain(int32_t fd);

// poll(2) for readability of up to 24 descriptors; returns the bit mask of the readable (or failed) ones, 0 on
// timeout, -errno on error. timeout in milliseconds, -1 for ever. EINTR returns 0.
int32_t pt_poll(const int32_t *fds, int32_t count, int32_t timeout);
void pt_close(int32_t fd);

// poll(2) for writability: 1 when writable, 0 on timeout, -errno on error. timeout in milliseconds.
int32_t pt_wait_writable(int32_t fd, int32_t timeout);

// Effective CAP_NET_ADMIN: 1 or 0.
int32_t pt_has_net_admin(void);
// SO_PEERCRED of a Unix socket. 0 or -errno.
int32_t pt_peer_credentials(int32_t fd, uint32_t *uid, uint32_t *gid, uint32_t *pid);
// Name of the calling thread, at most 15 bytes.
void pt_thread_name(const char *name);
// CPU nanoseconds of this process.
uint64_t pt_process_cpu(void);

// Whole small files (/proc, /sys). Bytes read (at most `length`), or -errno.
int64_t pt_file_read(const char *path, void *buffer, size_t length);
// One write to an existing file. 0 or -errno.
int32_t pt_file_write(const char *path, const void *bytes, size_t length);
// Moves the calling thread, and processes it starts from now on, into a network namespace of its own (and a mount
// namespace if asked). It goes when the thread, its processes and their descriptors are gone. 0 or -errno.
int32_t pt_unshare_network(uint32_t with_mounts);

#endif
