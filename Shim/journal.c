// Datagrams to journald. See pt_journal.h.
#define _GNU_SOURCE
#include "pt_journal.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

int32_t pt_journal_open(void) {
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return -errno;
    int size = 8 << 20;
    // Beyond the limit for all users where that is allowed; what the kernel gives is enough for most.
    if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof size) < 0)
        (void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    return fd;
}

static int sealed(const void *entry, size_t length) {
    int fd = memfd_create("journal-entry", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0) return -errno;
    const char *rest = entry;
    while (length > 0) {
        ssize_t count = write(fd, rest, length);
        if (count < 0 && errno == EINTR) continue;
        if (count <= 0) goto failed;
        rest += count;
        length -= (size_t)count;
    }
    if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL) < 0) goto failed;
    return fd;
failed:;
    int error = errno ? -errno : -EIO;
    close(fd);
    return error;
}

int32_t pt_journal_send(int32_t fd, const char *path, const void *entry, size_t length) {
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    size_t size = strlen(path);
    if (size >= sizeof name.sun_path) return -ENAMETOOLONG;
    memcpy(name.sun_path, path, size);
    struct iovec part = {.iov_base = (void *)entry, .iov_len = length};
    struct msghdr message = {
        .msg_name = &name, .msg_namelen = sizeof name, .msg_iov = &part, .msg_iovlen = 1};
    ssize_t sent;
    do sent = sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    while (sent < 0 && errno == EINTR);
    if (sent >= 0) return 0;
    if (errno != EMSGSIZE && errno != ENOBUFS) return -errno;
    int file = sealed(entry, length);
    if (file < 0) return file;
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof(int))];
    } control;
    memset(&control, 0, sizeof control);
    control.header.cmsg_level = SOL_SOCKET;
    control.header.cmsg_type = SCM_RIGHTS;
    control.header.cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(&control.header), &file, sizeof file);
    message.msg_iov = NULL;
    message.msg_iovlen = 0;
    message.msg_control = &control;
    message.msg_controllen = sizeof control;
    do sent = sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    while (sent < 0 && errno == EINTR);
    int32_t result = sent < 0 ? -errno : 0;
    close(file);
    return result;
}

int32_t pt_is_stderr(uint64_t device, uint64_t inode) {
    struct stat status;
    return fstat(STDERR_FILENO, &status) == 0 && (uint64_t)status.st_dev == device && (uint64_t)status.st_ino == inode;
}
