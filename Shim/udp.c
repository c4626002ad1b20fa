// The UDP socket: dual stack, DF set, batches with UDP_SEGMENT and UDP_GRO control messages. See pt_udp.h.
#define _GNU_SOURCE
#include "pt_udp.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif
#ifndef UDP_GRO
#define UDP_GRO 104
#endif

static const uint8_t mapped_prefix[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
static const uint8_t unspecified[16] = {0};

typedef union {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
} socket_address;

// Every field is written: the memory may hold anything. 0 when the family cannot carry the address.
static inline socklen_t to_socket_address(socket_address *out, const pt_endpoint *from, int32_t family) {
    if (family == 6) {
        out->v6.sin6_family = AF_INET6;
        out->v6.sin6_port = htons(from->port);
        out->v6.sin6_flowinfo = 0;
        memcpy(&out->v6.sin6_addr, from->address, 16);
        out->v6.sin6_scope_id = from->scope;
        return sizeof out->v6;
    }
    out->v4.sin_family = AF_INET;
    out->v4.sin_port = htons(from->port);
    memset(out->v4.sin_zero, 0, sizeof out->v4.sin_zero);
    if (memcmp(from->address, mapped_prefix, 12) == 0) {
        memcpy(&out->v4.sin_addr, from->address + 12, 4);
    } else if (memcmp(from->address, unspecified, 16) == 0) {
        out->v4.sin_addr.s_addr = INADDR_ANY;
    } else {
        return 0;
    }
    return sizeof out->v4;
}

static inline void from_socket_address(pt_endpoint *out, const socket_address *from) {
    out->reserved = 0;
    if (from->any.sa_family == AF_INET6) {
        memcpy(out->address, &from->v6.sin6_addr, 16);
        out->port = ntohs(from->v6.sin6_port);
        out->scope = from->v6.sin6_scope_id;
    } else {
        memcpy(out->address, mapped_prefix, 12);
        memcpy(out->address + 12, &from->v4.sin_addr, 4);
        out->port = ntohs(from->v4.sin_port);
        out->scope = 0;
    }
}

static int set_option(int fd, int level, int name, int value) {
    return setsockopt(fd, level, name, &value, sizeof value) < 0 ? -errno : 0;
}

static int never_fragment(int fd, int32_t family) {
    int result = family == 6 ? set_option(fd, IPPROTO_IPV6, IPV6_MTU_DISCOVER, IPV6_PMTUDISC_PROBE) : 0;
    // Also on the IPv6 socket: it is what IPv4-mapped destinations obey.
    return result < 0 ? result : set_option(fd, IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_PROBE);
}

int32_t pt_udp_open(const pt_endpoint *local, int32_t *family) {
    *family = 6;
    int fd = socket(AF_INET6, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0 && errno == EAFNOSUPPORT) {
        *family = 4;
        fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    }
    if (fd < 0) return -errno;

    int result = *family == 6 ? set_option(fd, IPPROTO_IPV6, IPV6_V6ONLY, 0) : 0;
    if (result == 0) result = never_fragment(fd, *family);

    socket_address address;
    if (result == 0) {
        socklen_t length = to_socket_address(&address, local, *family);
        if (length == 0) {
            result = -EAFNOSUPPORT;
        } else if (bind(fd, &address.any, length) < 0) {
            result = -errno;
        }
    }
    if (result < 0) {
        close(fd);
        return result;
    }
    return fd;
}

static int option(int fd, int level, int name) {
    int value = -1;
    socklen_t length = sizeof value;
    return getsockopt(fd, level, name, &value, &length) < 0 ? -1 : value;
}

int32_t pt_udp_adopt(int32_t fd, int32_t *family) {
    const int domain = option(fd, SOL_SOCKET, SO_DOMAIN);
    if ((domain != AF_INET6 && domain != AF_INET) || option(fd, SOL_SOCKET, SO_PROTOCOL) != IPPROTO_UDP) return -EINVAL;
    *family = domain == AF_INET6 ? 6 : 4;
    if (*family == 6 && option(fd, IPPROTO_IPV6, IPV6_V6ONLY) != 0) return -EINVAL;
    socket_address address;
    socklen_t length = sizeof address;
    // A connected one hears nobody else.
    if (getpeername(fd, &address.any, &length) == 0) return -EINVAL;
    pt_endpoint local;
    int32_t result = pt_udp_local(fd, &local);
    if (result < 0 || local.port == 0) return result < 0 ? result : -EINVAL;
    const int mode = fcntl(fd, F_GETFL);
    if (mode < 0 || fcntl(fd, F_SETFL, mode | O_NONBLOCK) < 0) return -errno;
    return never_fragment(fd, *family);
}

static int grow_buffer(int fd, int forced, int plain, int32_t bytes, int32_t *granted) {
    if (setsockopt(fd, SOL_SOCKET, forced, &bytes, sizeof bytes) < 0 &&
        setsockopt(fd, SOL_SOCKET, plain, &bytes, sizeof bytes) < 0) {
        return -errno;
    }
    int value = 0;
    socklen_t length = sizeof value;
    if (getsockopt(fd, SOL_SOCKET, plain, &value, &length) < 0) return -errno;
    // The kernel doubles what is asked, for its own bookkeeping (socket(7)).
    *granted = value / 2;
    return 0;
}

int32_t pt_udp_set_buffers(int32_t fd, int32_t bytes, int32_t *receive, int32_t *send) {
    int result = grow_buffer(fd, SO_RCVBUFFORCE, SO_RCVBUF, bytes, receive);
    return result < 0 ? result : grow_buffer(fd, SO_SNDBUFFORCE, SO_SNDBUF, bytes, send);
}

int32_t pt_udp_set_gro(int32_t fd, int32_t on) { return set_option(fd, IPPROTO_UDP, UDP_GRO, on ? 1 : 0); }

int32_t pt_udp_probe_gso(int32_t fd) {
    int value = 0;
    socklen_t length = sizeof value;
    return getsockopt(fd, IPPROTO_UDP, UDP_SEGMENT, &value, &length) < 0 ? -errno : 0;
}

int32_t pt_udp_local(int32_t fd, pt_endpoint *local) {
    socket_address address;
    socklen_t length = sizeof address;
    if (getsockname(fd, &address.any, &length) < 0) return -errno;
    from_socket_address(local, &address);
    return 0;
}

typedef union {
    struct cmsghdr header;
    uint8_t bytes[CMSG_SPACE(sizeof(int))];
} control_buffer;

int32_t pt_udp_send(int32_t fd, int32_t family, const pt_send *messages, int32_t count) {
    struct mmsghdr headers[PT_UDP_BATCH];
    struct iovec slices[PT_UDP_BATCH];
    socket_address addresses[PT_UDP_BATCH];
    control_buffer controls[PT_UDP_BATCH];

    if (count > PT_UDP_BATCH) count = PT_UDP_BATCH;
    if (count <= 0) return 0;
    int32_t ready = 0;
    for (; ready < count; ready++) {
        const pt_send *message = &messages[ready];
        struct msghdr *header = &headers[ready].msg_hdr;
        socklen_t length = to_socket_address(&addresses[ready], &message->to, family);
        if (length == 0) {
            if (ready == 0) return -EAFNOSUPPORT;
            break;
        }
        slices[ready].iov_base = message->data;
        slices[ready].iov_len = message->length;
        header->msg_name = &addresses[ready];
        header->msg_namelen = length;
        header->msg_iov = &slices[ready];
        header->msg_iovlen = 1;
        header->msg_flags = 0;
        if (message->segment > 0 && message->segment < message->length) {
            struct cmsghdr *control = &controls[ready].header;
            control->cmsg_level = IPPROTO_UDP;
            control->cmsg_type = UDP_SEGMENT;
            control->cmsg_len = CMSG_LEN(sizeof(uint16_t));
            memcpy(CMSG_DATA(control), &message->segment, sizeof(uint16_t));
            header->msg_control = control;
            header->msg_controllen = CMSG_SPACE(sizeof(uint16_t));
        } else {
            header->msg_control = NULL;
            header->msg_controllen = 0;
        }
    }
    int sent;
    do {
        sent = sendmmsg(fd, headers, (unsigned)ready, MSG_DONTWAIT);
    } while (sent < 0 && errno == EINTR);
    return sent < 0 ? -errno : sent;
}

int32_t pt_udp_receive(int32_t fd, pt_receive *messages, int32_t count) {
    struct mmsghdr headers[PT_UDP_BATCH];
    struct iovec slices[PT_UDP_BATCH];
    socket_address addresses[PT_UDP_BATCH];
    control_buffer controls[PT_UDP_BATCH];

    if (count > PT_UDP_BATCH) count = PT_UDP_BATCH;
    if (count <= 0) return 0;
    for (int32_t i = 0; i < count; i++) {
        struct msghdr *header = &headers[i].msg_hdr;
        slices[i].iov_base = messages[i].data;
        slices[i].iov_len = messages[i].capacity;
        header->msg_name = &addresses[i];
        header->msg_namelen = sizeof addresses[i];
        header->msg_iov = &slices[i];
        header->msg_iovlen = 1;
        header->msg_control = &controls[i];
        header->msg_controllen = sizeof controls[i];
        header->msg_flags = 0;
    }
    int received;
    do {
        received = recvmmsg(fd, headers, (unsigned)count, MSG_DONTWAIT, NULL);
    } while (received < 0 && errno == EINTR);
    if (received < 0) return -errno;

    for (int32_t i = 0; i < received; i++) {
        struct msghdr *header = &headers[i].msg_hdr;
        uint32_t segment = 0;
        for (struct cmsghdr *control = CMSG_FIRSTHDR(header); control; control = CMSG_NXTHDR(header, control)) {
            if (control->cmsg_level == IPPROTO_UDP && control->cmsg_type == UDP_GRO) {
                int value;
                memcpy(&value, CMSG_DATA(control), sizeof value);
                if (value > 0 && value <= UINT16_MAX) segment = (uint32_t)value;
            }
        }
        messages[i].length = headers[i].msg_len;
        messages[i].segment = segment < headers[i].msg_len ? (uint16_t)segment : 0;
        messages[i].truncated = (header->msg_flags & MSG_TRUNC) != 0;
        from_socket_address(&messages[i].from, &addresses[i]);
    }
    return received;
}

int32_t pt_udp_route_mtu(const pt_endpoint *to) {
    const int32_t family = memcmp(to->address, mapped_prefix, 12) == 0 ? 4 : 6;
    int fd = socket(family == 6 ? AF_INET6 : AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return -errno;
    socket_address address;
    socklen_t size = to_socket_address(&address, to, family);
    int value = 0;
    socklen_t length = sizeof value;
    // Only a connected socket has a route.
    if (connect(fd, &address.any, size) < 0 ||
        getsockopt(fd, family == 6 ? IPPROTO_IPV6 : IPPROTO_IP, family == 6 ? IPV6_MTU : IP_MTU, &value, &length) < 0) {
        value = -errno;
    }
    close(fd);
    return value;
}

int32_t pt_udp_drain_errors(int32_t fd) {
    int32_t drained = 0;
    uint8_t data[64];
    uint8_t control[512];
    while (drained < 1024) {
        struct iovec slice = {.iov_base = data, .iov_len = sizeof data};
        struct msghdr header = {.msg_iov = &slice, .msg_iovlen = 1, .msg_control = control,
                                .msg_controllen = sizeof control};
        if (recvmsg(fd, &header, MSG_ERRQUEUE | MSG_DONTWAIT) < 0) {
            if (errno == EINTR) continue;
            break;
        }
        drained++;
    }
    return drained;
}
