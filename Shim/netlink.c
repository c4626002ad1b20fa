// rtnetlink by libmnl: one request and its answer at a time, and a socket to watch. See pt_netlink.h.
#define _GNU_SOURCE
#include "pt_netlink.h"

#include <errno.h>
#include <fcntl.h>
#include <libmnl/libmnl.h>
#include <linux/if.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

typedef struct {
    struct mnl_socket *socket;
    uint32_t port;
    uint32_t sequence;
    int is_watch;
    // Answers of a dump come in pieces of up to 32 KiB.
    _Alignas(8) uint8_t buffer[32768];
} netlink_socket;

void *pt_netlink_open(uint32_t groups, int32_t *error) {
    *error = 0;
    netlink_socket *self = calloc(1, sizeof *self);
    if (!self) {
        *error = -ENOMEM;
        return NULL;
    }
    self->is_watch = groups != 0;
    self->sequence = (uint32_t)time(NULL);
    self->socket = mnl_socket_open2(NETLINK_ROUTE, SOCK_CLOEXEC | (groups ? SOCK_NONBLOCK : 0));
    if (!self->socket) {
        *error = -errno;
        free(self);
        return NULL;
    }
    unsigned mask = 0;
    if (groups & PT_NETLINK_LINK) mask |= RTMGRP_LINK;
    if (groups & PT_NETLINK_ADDRESS) mask |= RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR;
    if (groups & PT_NETLINK_ROUTE) mask |= RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_ROUTE;
    if (mnl_socket_bind(self->socket, mask, MNL_SOCKET_AUTOPID) < 0) {
        *error = -errno;
        mnl_socket_close(self->socket);
        free(self);
        return NULL;
    }
    self->port = mnl_socket_get_portid(self->socket);
    return self;
}

void pt_netlink_close(void *socket) {
    netlink_socket *self = socket;
    if (!self) return;
    mnl_socket_close(self->socket);
    free(self);
}

int32_t pt_netlink_fd(void *socket) { return mnl_socket_get_fd(((netlink_socket *)socket)->socket); }

static struct nlmsghdr *begin(netlink_socket *self, uint16_t type, uint16_t flags) {
    memset(self->buffer, 0, 1024);
    struct nlmsghdr *message = mnl_nlmsg_put_header(self->buffer);
    message->nlmsg_type = type;
    message->nlmsg_flags = (uint16_t)(NLM_F_REQUEST | flags);
    message->nlmsg_seq = ++self->sequence;
    return message;
}

// Sends the request in the buffer and reads until its answer is whole. 0 or -errno of the kernel.
static int32_t transact(netlink_socket *self, struct nlmsghdr *message, mnl_cb_t each, void *context) {
    uint32_t sequence = message->nlmsg_seq;
    if (mnl_socket_sendto(self->socket, message, message->nlmsg_len) < 0) return -errno;
    for (;;) {
        ssize_t length = mnl_socket_recvfrom(self->socket, self->buffer, sizeof self->buffer);
        if (length < 0) {
            if (errno == EINTR) continue;
            return -errno;
        }
        int result = mnl_cb_run(self->buffer, (size_t)length, sequence, self->port, each, context);
        if (result < 0) {
            // An answer to an earlier request that was given up: not ours.
            if (errno == ESRCH || errno == EPROTO) {
                const struct nlmsghdr *header = (const void *)self->buffer;
                if (header->nlmsg_seq != sequence) continue;
            }
            return -errno;
        }
        if (result == MNL_CB_STOP) return 0;
    }
}

int32_t pt_link_index(const char *name) {
    if (strlen(name) >= IFNAMSIZ) return -ENAMETOOLONG;
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return -errno;
    struct ifreq request;
    memset(&request, 0, sizeof request);
    memcpy(request.ifr_name, name, strlen(name));
    int32_t result = ioctl(fd, SIOCGIFINDEX, &request) < 0 ? -errno : request.ifr_ifindex;
    close(fd);
    return result;
}

static struct nlmsghdr *begin_link(netlink_socket *self, uint32_t index, unsigned flags, unsigned change) {
    struct nlmsghdr *message = begin(self, RTM_NEWLINK, NLM_F_ACK);
    struct ifinfomsg *link = mnl_nlmsg_put_extra_header(message, sizeof *link);
    link->ifi_family = AF_UNSPEC;
    link->ifi_index = (int)index;
    link->ifi_flags = flags;
    link->ifi_change = change;
    return message;
}

int32_t pt_link_up(void *socket, uint32_t index) {
    return transact(socket, begin_link(socket, index, IFF_UP, IFF_UP), NULL, NULL);
}

int32_t pt_link_set_mtu(void *socket, uint32_t index, uint32_t mtu) {
    struct nlmsghdr *message = begin_link(socket, index, 0, 0);
    mnl_attr_put_u32(message, IFLA_MTU, mtu);
    return transact(socket, message, NULL, NULL);
}

int32_t pt_link_set_txqueuelen(void *socket, uint32_t index, uint32_t length) {
    struct nlmsghdr *message = begin_link(socket, index, 0, 0);
    mnl_attr_put_u32(message, IFLA_TXQLEN, length);
    return transact(socket, message, NULL, NULL);
}

static struct nlmsghdr *begin_address(netlink_socket *self, uint16_t type, uint16_t flags, uint32_t index,
                                      const uint8_t address[16], uint32_t prefix_length) {
    struct nlmsghdr *message = begin(self, type, (uint16_t)(NLM_F_ACK | flags));
    struct ifaddrmsg *body = mnl_nlmsg_put_extra_header(message, sizeof *body);
    body->ifa_family = AF_INET6;
    body->ifa_prefixlen = (uint8_t)prefix_length;
    body->ifa_scope = RT_SCOPE_UNIVERSE;
    body->ifa_index = index;
    mnl_attr_put(message, IFA_LOCAL, 16, address);
    mnl_attr_put(message, IFA_ADDRESS, 16, address);
    return message;
}

int32_t pt_address_add(void *socket, uint32_t index, const uint8_t address[16], uint32_t prefix_length) {
    struct nlmsghdr *message =
        begin_address(socket, RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, index, address, prefix_length);
    mnl_attr_put_u32(message, IFA_FLAGS, IFA_F_NODAD | IFA_F_NOPREFIXROUTE);
    return transact(socket, message, NULL, NULL);
}

int32_t pt_address_remove(void *socket, uint32_t index, const uint8_t address[16], uint32_t prefix_length) {
    return transact(socket, begin_address(socket, RTM_DELADDR, 0, index, address, prefix_length), NULL, NULL);
}

int32_t pt_route_add(void *socket, uint32_t index, const uint8_t prefix[16], uint32_t prefix_length,
                     const uint8_t *source) {
    struct nlmsghdr *message = begin(socket, RTM_NEWROUTE, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL);
    struct rtmsg *route = mnl_nlmsg_put_extra_header(message, sizeof *route);
    route->rtm_family = AF_INET6;
    route->rtm_dst_len = (uint8_t)prefix_length;
    route->rtm_table = RT_TABLE_MAIN;
    route->rtm_protocol = RTPROT_STATIC;
    route->rtm_scope = RT_SCOPE_UNIVERSE;
    route->rtm_type = RTN_UNICAST;
    mnl_attr_put(message, RTA_DST, 16, prefix);
    mnl_attr_put_u32(message, RTA_OIF, index);
    if (source) mnl_attr_put(message, RTA_PREFSRC, 16, source);
    return transact(socket, message, NULL, NULL);
}

typedef struct {
    uint32_t *index;
    uint8_t *gateway;
    uint8_t *source;
} way;

static int note_way(const struct nlmsghdr *message, void *context) {
    way *found = context;
    if (message->nlmsg_type != RTM_NEWROUTE) return MNL_CB_OK;
    const struct nlattr *attribute;
    mnl_attr_for_each(attribute, message, sizeof(struct rtmsg)) {
        uint16_t length = mnl_attr_get_payload_len(attribute);
        const void *payload = mnl_attr_get_payload(attribute);
        switch (mnl_attr_get_type(attribute)) {
        case RTA_OIF:
            if (length == sizeof *found->index) memcpy(found->index, payload, length);
            break;
        case RTA_GATEWAY:
            if (length == 16) memcpy(found->gateway, payload, length);
            break;
        case RTA_PREFSRC:
            if (length == 16) memcpy(found->source, payload, length);
            break;
        default:
            break;
        }
    }
    return MNL_CB_OK;
}

int32_t pt_route_find(void *socket, const uint8_t destination[16], uint32_t *index, uint8_t gateway[16],
                      uint8_t source[16]) {
    *index = 0;
    memset(gateway, 0, 16);
    memset(source, 0, 16);
    way found = {.index = index, .gateway = gateway, .source = source};
    // The acknowledgement ends the answer.
    struct nlmsghdr *message = begin(socket, RTM_GETROUTE, NLM_F_ACK);
    struct rtmsg *route = mnl_nlmsg_put_extra_header(message, sizeof *route);
    route->rtm_family = AF_INET6;
    route->rtm_dst_len = 128;
    mnl_attr_put(message, RTA_DST, 16, destination);
    return transact(socket, message, note_way, &found);
}

typedef struct {
    const uint8_t *address;
    uint32_t index;
    int found;
} search;

static int match_address(const struct nlmsghdr *message, void *context) {
    search *wanted = context;
    if (message->nlmsg_type != RTM_NEWADDR) return MNL_CB_OK;
    const struct ifaddrmsg *body = mnl_nlmsg_get_payload(message);
    if (body->ifa_family != AF_INET6) return MNL_CB_OK;
    const struct nlattr *attribute;
    mnl_attr_for_each(attribute, message, sizeof *body) {
        int type = mnl_attr_get_type(attribute);
        if ((type == IFA_ADDRESS || type == IFA_LOCAL) && mnl_attr_get_payload_len(attribute) == 16 &&
            memcmp(mnl_attr_get_payload(attribute), wanted->address, 16) == 0 && !wanted->found) {
            wanted->found = 1;
            wanted->index = body->ifa_index;
        }
    }
    return MNL_CB_OK;
}

int32_t pt_address_find(void *socket, const uint8_t address[16], uint32_t *index) {
    int32_t result = -EINTR;
    // EINTR: the table changed during the dump, so it may be incomplete.
    for (int attempt = 0; attempt < 4 && result == -EINTR; attempt++) {
        search wanted = {.address = address, .index = 0, .found = 0};
        struct nlmsghdr *message = begin(socket, RTM_GETADDR, NLM_F_DUMP);
        struct ifaddrmsg *body = mnl_nlmsg_put_extra_header(message, sizeof *body);
        body->ifa_family = AF_INET6;
        result = transact(socket, message, match_address, &wanted);
        if (result == 0) {
            *index = wanted.index;
            result = wanted.found;
        }
    }
    return result;
}

int32_t pt_netlink_drain(void *socket) {
    netlink_socket *self = socket;
    int32_t seen = 0;
    if (!self->is_watch) return -EINVAL;
    for (;;) {
        ssize_t length = mnl_socket_recvfrom(self->socket, self->buffer, sizeof self->buffer);
        if (length < 0) {
            if (errno == EINTR) continue;
            if (errno == EAGAIN || errno == EWOULDBLOCK) return seen;
            // The kernel dropped notifications: anything may have changed.
            if (errno == ENOBUFS) {
                seen |= (int32_t)(PT_NETLINK_LINK | PT_NETLINK_ADDRESS | PT_NETLINK_ROUTE);
                continue;
            }
            return seen ? seen : -errno;
        }
        const struct nlmsghdr *message = (const void *)self->buffer;
        int rest = (int)length;
        for (; mnl_nlmsg_ok(message, rest); message = mnl_nlmsg_next(message, &rest)) {
            switch (message->nlmsg_type) {
            case RTM_NEWLINK:
            case RTM_DELLINK:
                seen |= (int32_t)PT_NETLINK_LINK;
                break;
            case RTM_NEWADDR:
            case RTM_DELADDR:
                seen |= (int32_t)PT_NETLINK_ADDRESS;
                break;
            case RTM_NEWROUTE:
            case RTM_DELROUTE:
                seen |= (int32_t)PT_NETLINK_ROUTE;
                break;
            default:
                break;
            }
        }
    }
}
