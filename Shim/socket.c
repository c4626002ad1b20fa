// Stream sockets (TCP over IPv6, Unix) and epoll. See pt_socket.h.
#define _GNU_SOURCE
#include "pt_socket.h"

#include <errno.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

int32_t pt_epoll_open(void) {
    int fd = epoll_create1(EPOLL_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

static int32_t watch(int32_t epoll, int32_t fd, uint64_t tag, uint32_t events) {
    struct epoll_event event = {.events = events, .data.u64 = tag};
    return epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

int32_t pt_epoll_add(int32_t epoll, int32_t fd, uint64_t tag) {
    return watch(epoll, fd, tag, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET);
}

int32_t pt_epoll_add_level(int32_t epoll, int32_t fd, uint64_t tag) { return watch(epoll, fd, tag, EPOLLIN); }

int32_t pt_epoll_wait(int32_t epoll, pt_happened *happened, int32_t count, int32_t timeout) {
    struct epoll_event events[256];
    if (count > 256) count = 256;
    int ready = epoll_wait(epoll, events, count, timeout);
    if (ready < 0) return errno == EINTR ? 0 : -errno;
    for (int i = 0; i < ready; i++) {
        uint32_t bits = 0;
        if (events[i].events & (EPOLLIN | EPOLLRDHUP)) bits |= PT_READABLE;
        if (events[i].events & EPOLLOUT) bits |= PT_WRITABLE;
        if (events[i].events & (EPOLLHUP | EPOLLERR)) bits |= PT_HUNG_UP;
        happened[i] = (pt_happened){.tag = events[i].data.u64, .events = bits};
    }
    return ready;
}

static struct sockaddr_in6 address_of(const uint8_t address[16], uint16_t port) {
    struct sockaddr_in6 name = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
    memcpy(&name.sin6_addr, address, 16);
    return name;
}

// A socket bound to the address at a free port, which is told.
static int open_bound(const uint8_t address[16], uint16_t *port) {
    int fd = socket(AF_INET6, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) return -errno;
    int on = 1;
    struct sockaddr_in6 name = address_of(address, 0);
    socklen_t length = sizeof name;
    if (setsockopt(fd, IPPROTO_IPV6, IPV6_FREEBIND, &on, sizeof on) < 0 ||
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on) < 0 ||
        bind(fd, (struct sockaddr *)&name, sizeof name) < 0 || getsockname(fd, (struct sockaddr *)&name, &length) < 0) {
        int error = -errno;
        close(fd);
        return error;
    }
    *port = ntohs(name.sin6_port);
    return fd;
}

int32_t pt_tcp_listen(const uint8_t address[16], int32_t backlog, uint16_t *port) {
    int fd = open_bound(address, port);
    if (fd >= 0 && listen(fd, backlog) < 0) {
        int error = -errno;
        close(fd);
        return error;
    }
    return fd;
}

int32_t pt_tcp_accept(int32_t listener, uint8_t peer[16], uint16_t *port) {
    struct sockaddr_in6 name;
    socklen_t length = sizeof name;
    int fd;
    do {
        fd = accept4(listener, (struct sockaddr *)&name, &length, SOCK_NONBLOCK | SOCK_CLOEXEC);
    } while (fd < 0 && (errno == EINTR || errno == ECONNABORTED));
    if (fd < 0) return -errno;
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    memcpy(peer, &name.sin6_addr, 16);
    *port = ntohs(name.sin6_port);
    return fd;
}

int32_t pt_tcp_bind(const uint8_t address[16], uint16_t *port) {
    int fd = open_bound(address, port);
    int on = 1;
    if (fd >= 0) setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    return fd;
}

int32_t pt_tcp_connect(int32_t fd, const uint8_t address[16], uint16_t port) {
    struct sockaddr_in6 name = address_of(address, port);
    if (connect(fd, (struct sockaddr *)&name, sizeof name) == 0 || errno == EINPROGRESS || errno == EINTR) return 0;
    return -errno;
}

void pt_tcp_abort(int32_t fd) {
    struct linger now = {.l_onoff = 1, .l_linger = 0};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    close(fd);
}

int32_t pt_socket_error(int32_t fd) {
    int error = 0;
    socklen_t length = sizeof error;
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length) < 0) return -errno;
    return -error;
}

int32_t pt_source_address(const uint8_t address[16], uint16_t port, uint8_t source[16]) {
    struct sockaddr_in6 v6 = address_of(address, port);
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(port)};
    memcpy(&v4.sin_addr, address + 12, 4);
    struct sockaddr *name = (struct sockaddr *)&v6;
    socklen_t length = sizeof v6;
    int fd = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0 && IN6_IS_ADDR_V4MAPPED(&v6.sin6_addr)) {
        // A kernel without IPv6.
        fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        name = (struct sockaddr *)&v4;
        length = sizeof v4;
    }
    if (fd < 0) return -errno;
    int32_t result = connect(fd, name, length) < 0 || getsockname(fd, name, &length) < 0 ? -errno : 0;
    close(fd);
    if (result < 0) return result;
    if (name->sa_family == AF_INET6) {
        memcpy(source, &v6.sin6_addr, 16);
    } else {
        memcpy(source, address, 12);
        memcpy(source + 12, &v4.sin_addr, 4);
    }
    return 0;
}

int64_t pt_socket_send(int32_t fd, const void *bytes, size_t length) {
    ssize_t count;
    do {
        count = send(fd, bytes, length, MSG_NOSIGNAL);
    } while (count < 0 && errno == EINTR);
    return count < 0 ? -errno : count;
}

int64_t pt_socket_receive(int32_t fd, void *bytes, size_t length) {
    ssize_t count;
    do {
        count = recv(fd, bytes, length, 0);
    } while (count < 0 && errno == EINTR);
    return count < 0 ? -errno : count;
}

int32_t pt_socket_unacknowledged(int32_t fd) {
    int count = 0;
    return ioctl(fd, SIOCOUTQ, &count) < 0 ? -errno : count;
}

void pt_raise_file_limit(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0) return;
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

int32_t pt_socket_end(int32_t fd) { return shutdown(fd, SHUT_WR) < 0 ? -errno : 0; }

int32_t pt_unix_listen(const char *path, int32_t backlog) {
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    char directory[sizeof name.sun_path];
    if (snprintf(directory, sizeof directory, "%s.XXXXXX", path) >= (int)sizeof directory) return -ENAMETOOLONG;
    if (!mkdtemp(directory)) return -errno;
    int fd = -1;
    int error = 0;
    if (snprintf(name.sun_path, sizeof name.sun_path, "%s/s", directory) >= (int)sizeof name.sun_path) {
        error = -ENAMETOOLONG;
    } else {
        fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        if (fd < 0 || bind(fd, (struct sockaddr *)&name, sizeof name) < 0) {
            error = -errno;
        } else if (chmod(name.sun_path, 0600) < 0 || listen(fd, backlog) < 0 || rename(name.sun_path, path) < 0) {
            error = -errno;
            unlink(name.sun_path);
        }
    }
    rmdir(directory);
    if (error == 0) return fd;
    if (fd >= 0) close(fd);
    return error;
}

int32_t pt_unix_accept(int32_t listener) {
    int fd;
    do {
        fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    } while (fd < 0 && (errno == EINTR || errno == ECONNABORTED));
    return fd < 0 ? -errno : fd;
}

int32_t pt_unix_connect(const char *path, uint32_t now_or_never) {
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof name.sun_path) return -ENAMETOOLONG;
    strcpy(name.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | (now_or_never ? SOCK_NONBLOCK : 0), 0);
    if (fd < 0) return -errno;
    if (connect(fd, (struct sockaddr *)&name, sizeof name) == 0) return fd;
    int32_t error = -errno;
    close(fd);
    return error;
}
