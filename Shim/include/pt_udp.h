// Batched UDP with segmentation offload. Used by LinkIO's UDPSocket and, per batch, by Engine.
#ifndef PT_UDP_H
#define PT_UDP_H

#include <stddef.h>
#include <stdint.h>

// An endpoint in network order: 16 address bytes (IPv4 mapped), port in host order.
typedef struct {
    uint8_t address[16];
    uint16_t port;
    uint16_t reserved;
    uint32_t scope;
} pt_endpoint;

// Dual-stack (AF_INET6, V6ONLY off; plain AF_INET when the kernel has no IPv6: *family tells 4 or 6), bound to
// `local`, non-blocking, close-on-exec, IP(V6)_MTU_DISCOVER = PROBE (DF set, no fragmentation). fd or -errno.
int32_t pt_udp_open(const pt_endpoint *local, int32_t *family);
// The same for a descriptor from elsewhere: 0 when it is a bound UDP socket that is connected to nobody; *family as
// above, with the options above. -EINVAL for every other thing.
int32_t pt_udp_adopt(int32_t fd, int32_t *family);
// Sets both buffers, SO_*BUFFORCE first, SO_*BUF else; what the kernel granted is returned through the pointers.
int32_t pt_udp_set_buffers(int32_t fd, int32_t bytes, int32_t *receive, int32_t *send);
// UDP_GRO on or off. 0 or -errno.
int32_t pt_udp_set_gro(int32_t fd, int32_t on);
// 0 when UDP_SEGMENT is a known option here, or -errno.
int32_t pt_udp_probe_gso(int32_t fd);
int32_t pt_udp_local(int32_t fd, pt_endpoint *local);

// One outgoing message: `length` bytes at `data` to `to`; cut by the kernel every `segment` bytes when segment > 0.
typedef struct {
    void *data;
    uint32_t length;
    uint16_t segment;
    uint16_t reserved;
    pt_endpoint to;
} pt_send;

// One incoming buffer; the call fills length, segment (0: one datagram) and from.
typedef struct {
    void *data;
    uint32_t capacity;
    uint32_t length;
    uint16_t segment;
    uint16_t truncated;
    pt_endpoint from;
} pt_receive;

#define PT_UDP_BATCH 64

// sendmmsg: number of messages sent (may be fewer than `count`), or -errno of the first one.
int32_t pt_udp_send(int32_t fd, int32_t family, const pt_send *messages, int32_t count);
// recvmmsg, non-blocking: number of messages, or -errno (-EAGAIN when none).
int32_t pt_udp_receive(int32_t fd, pt_receive *messages, int32_t count);
// MTU of the route to `to` as the kernel knows it (IP_MTU, IPV6_MTU); nothing is sent. Bytes, or -errno.
int32_t pt_udp_route_mtu(const pt_endpoint *to);
// Drains the socket's error queue (ICMP errors); number drained.
int32_t pt_udp_drain_errors(int32_t fd);

#endif
