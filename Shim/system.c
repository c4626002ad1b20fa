// eventfd, poll, clocks, capability and credential questions. See pt_system.h.
#define _GNU_SOURCE
#include "pt_system.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <poll.h>
#include <sched.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

static uint64_t read_clock(clockid_t clock) {
    struct timespec now;
    if (clock_gettime(clock, &now) < 0) return 0;
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

uint64_t pt_monotonic(void) { return read_clock(CLOCK_MONOTONIC); }
uint64_t pt_boottime(void) { return read_clock(CLOCK_BOOTTIME); }
uint64_t pt_process_cpu(void) { return read_clock(CLOCK_PROCESS_CPUTIME_ID); }

static int32_t arm_clock_watch(int32_t fd) {
    // Never due: only the clock's jumps make it readable.
    struct itimerspec never = {.it_value = {.tv_sec = INT32_MAX}};
    return timerfd_settime(fd, TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, &never, NULL) < 0 ? -errno : 0;
}

int32_t pt_clock_watch(void) {
    int fd = timerfd_create(CLOCK_REALTIME, TFD_NONBLOCK | TFD_CLOEXEC);
    if (fd < 0) return -errno;
    int32_t result = arm_clock_watch(fd);
    if (result == 0) return fd;
    close(fd);
    return result;
}

int32_t pt_clock_watch_again(int32_t fd) {
    uint64_t value;
    ssize_t count;
    do {
        count = read(fd, &value, sizeof value);
    } while (count < 0 && errno == EINTR);
    return arm_clock_watch(fd);
}

int32_t pt_eventfd(void) {
    int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

void pt_eventfd_signal(int32_t fd) {
    uint64_t one = 1;
    ssize_t count;
    do {
        count = write(fd, &one, sizeof one);
    } while (count < 0 && errno == EINTR);
}

void pt_eventfd_drain(int32_t fd) {
    uint64_t value;
    ssize_t count;
    do {
        count = read(fd, &value, sizeof value);
    } while (count < 0 && errno == EINTR);
}

int32_t pt_poll(const int32_t *fds, int32_t count, int32_t timeout) {
    struct pollfd polled[24];
    if (count < 0 || count > 24) return -EINVAL;
    for (int32_t i = 0; i < count; i++) {
        polled[i].fd = fds[i];
        polled[i].events = POLLIN;
        polled[i].revents = 0;
    }
    int ready = poll(polled, (nfds_t)count, timeout);
    if (ready < 0) return errno == EINTR ? 0 : -errno;
    int32_t mask = 0;
    for (int32_t i = 0; i < count; i++) {
        if (polled[i].revents) mask |= 1 << i;
    }
    return mask;
}

void pt_close(int32_t fd) {
    if (fd >= 0) close(fd);
}

int32_t pt_has_net_admin(void) {
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
    struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3];
    memset(data, 0, sizeof data);
    if (syscall(SYS_capget, &header, data) < 0) return 0;
    return (data[CAP_TO_INDEX(CAP_NET_ADMIN)].effective & CAP_TO_MASK(CAP_NET_ADMIN)) != 0;
}

int32_t pt_peer_credentials(int32_t fd, uint32_t *uid, uint32_t *gid, uint32_t *pid) {
    struct ucred peer;
    socklen_t length = sizeof peer;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) < 0) return -errno;
    *uid = peer.uid;
    *gid = peer.gid;
    *pid = (uint32_t)peer.pid;
    return 0;
}

void pt_thread_name(const char *name) {
    char short_name[16];
    strncpy(short_name, name, sizeof short_name - 1);
    short_name[sizeof short_name - 1] = 0;
    prctl(PR_SET_NAME, short_name, 0, 0, 0);
}

int64_t pt_file_read(const char *path, void *buffer, size_t length) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return -errno;
    int64_t total = 0;
    while ((size_t)total < length) {
        ssize_t count = read(fd, (uint8_t *)buffer + total, length - (size_t)total);
        if (count < 0 && errno == EINTR) continue;
        if (count < 0) total = -errno;
        if (count <= 0) break;
        total += count;
    }
    close(fd);
    return total;
}

int32_t pt_file_write(const char *path, const void *bytes, size_t length) {
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0) return -errno;
    ssize_t count;
    do {
        count = write(fd, bytes, length);
    } while (count < 0 && errno == EINTR);
    int32_t result = count < 0 ? -errno : (size_t)count == length ? 0 : -EIO;
    close(fd);
    return result;
}

int32_t pt_unshare_network(uint32_t with_mounts) {
    return unshare(CLONE_NEWNET | (with_mounts ? CLONE_NEWNS : 0)) < 0 ? -errno : 0;
}
