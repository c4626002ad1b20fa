// sd_notify(3) by hand and descriptors that outlive the process. See pt_notify.h.
#define _GNU_SOURCE
#include "pt_notify.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

int32_t pt_notify(const char *path, const void *bytes, size_t length, int32_t fd) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const size_t size = strlen(path);
    if (size < 2 || size >= sizeof address.sun_path) return -EINVAL;
    memcpy(address.sun_path, path, size);
    socklen_t address_length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + size + 1);
    if (path[0] == '@') {
        address.sun_path[0] = 0;
        // An abstract name has no end but its length.
        address_length -= 1;
    }
    int notifier = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (notifier < 0) return -errno;
    struct timeval second = {.tv_sec = 1};
    (void)setsockopt(notifier, SOL_SOCKET, SO_SNDTIMEO, &second, sizeof second);

    struct iovec slice = {.iov_base = (void *)(uintptr_t)bytes, .iov_len = length};
    union {
        struct cmsghdr header;
        uint8_t bytes[CMSG_SPACE(sizeof(int))];
    } control;
    struct msghdr message = {
        .msg_name = &address, .msg_namelen = address_length, .msg_iov = &slice, .msg_iovlen = 1};
    if (fd >= 0) {
        memset(&control, 0, sizeof control);
        control.header.cmsg_level = SOL_SOCKET;
        control.header.cmsg_type = SCM_RIGHTS;
        control.header.cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(&control.header), &fd, sizeof fd);
        message.msg_control = &control;
        message.msg_controllen = sizeof control.bytes;
    }
    ssize_t sent;
    do {
        sent = sendmsg(notifier, &message, MSG_NOSIGNAL);
    } while (sent < 0 && errno == EINTR);
    int32_t result = sent < 0 ? -errno : 0;
    close(notifier);
    return result;
}

int32_t pt_fd_take(int32_t fd) {
    int flags = fcntl(fd, F_GETFD);
    if (flags < 0) return -errno;
    return fcntl(fd, F_SETFD, flags | FD_CLOEXEC) < 0 ? -errno : 0;
}

int32_t pt_memory_file(const char *name) {
    int fd = memfd_create(name, MFD_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

int32_t pt_memory_file_write(int32_t fd, const void *bytes, size_t length) {
    size_t done = 0;
    while (done < length) {
        ssize_t count = pwrite(fd, (const uint8_t *)bytes + done, length - done, (off_t)done);
        if (count < 0 && errno == EINTR) continue;
        if (count <= 0) return count < 0 ? -errno : -EIO;
        done += (size_t)count;
    }
    return ftruncate(fd, (off_t)length) < 0 ? -errno : 0;
}

int64_t pt_memory_file_read(int32_t fd, void *bytes, size_t length) {
    struct stat status;
    if (fstat(fd, &status) < 0) return -errno;
    if (!S_ISREG(status.st_mode)) return -EINVAL;
    size_t done = 0;
    while (done < length) {
        ssize_t count = pread(fd, (uint8_t *)bytes + done, length - done, (off_t)done);
        if (count < 0 && errno == EINTR) continue;
        if (count < 0) return -errno;
        if (count == 0) break;
        done += (size_t)count;
    }
    return (int64_t)done;
}
