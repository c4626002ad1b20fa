// rtnetlink by libmnl: links, addresses, routes, and the watch socket. LinkIO's Netlink calls these.
#ifndef PT_NETLINK_H
#define PT_NETLINK_H

#include <stddef.h>
#include <stdint.h>

// Opens an rtnetlink socket bound to no group (configuration). Handle or NULL; *error is -errno then.
void *pt_netlink_open(uint32_t groups, int32_t *error);
void pt_netlink_close(void *socket);
int32_t pt_netlink_fd(void *socket);
// Groups for a watch socket.
#define PT_NETLINK_LINK 1u
#define PT_NETLINK_ADDRESS 2u
#define PT_NETLINK_ROUTE 4u

// Interface index by name, or -errno.
int32_t pt_link_index(const char *name);
int32_t pt_link_up(void *socket, uint32_t index);
int32_t pt_link_set_mtu(void *socket, uint32_t index, uint32_t mtu);
int32_t pt_link_set_txqueuelen(void *socket, uint32_t index, uint32_t length);
// IPv6 address with prefix length, IFA_F_NODAD | IFA_F_NOPREFIXROUTE when asked. -EEXIST when it stands already.
int32_t pt_address_add(void *socket, uint32_t index, const uint8_t address[16], uint32_t prefix_length);
int32_t pt_address_remove(void *socket, uint32_t index, const uint8_t address[16], uint32_t prefix_length);
// Unicast route through the link, no gateway, with a preferred source if `source` is not NULL.
int32_t pt_route_add(void *socket, uint32_t index, const uint8_t prefix[16], uint32_t prefix_length,
                     const uint8_t *source);
// The way that packets to `destination` would take now (RTM_GETROUTE): its interface, its gateway (all zero: none) and the
// source address that the kernel would choose (all zero: none). 0, or -errno: -ENETUNREACH without a route.
int32_t pt_route_find(void *socket, const uint8_t destination[16], uint32_t *index, uint8_t gateway[16],
                      uint8_t source[16]);
// Drains pending notifications: the OR of PT_NETLINK_* kinds seen, 0 when none, or -errno.
int32_t pt_netlink_drain(void *socket);
// 1 when some interface already carries this IPv6 address (RTM_GETADDR dump), 0 when none, or -errno.
// The interface's index is written to *index.
int32_t pt_address_find(void *socket, const uint8_t address[16], uint32_t *index);

#endif
