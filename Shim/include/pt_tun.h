// The TUN device. LinkIO's TunDevice calls these.
#ifndef PT_TUN_H
#define PT_TUN_H

#include <stddef.h>
#include <stdint.h>

// Offload bits of pt_tun_set_offload, our own numbering.
#define PT_TUN_CSUM 1u
#define PT_TUN_TSO4 2u
#define PT_TUN_TSO6 4u
#define PT_TUN_USO4 8u
#define PT_TUN_USO6 16u

// virtio_net_hdr, 10 bytes, as it stands before each packet on a TUN opened with the virtio-net header. Host order.
#define PT_VNET_HEADER_SIZE 10
#define PT_VNET_F_NEEDS_CSUM 1u
#define PT_VNET_F_DATA_VALID 2u
#define PT_VNET_GSO_NONE 0u
#define PT_VNET_GSO_TCPV4 1u
#define PT_VNET_GSO_TCPV6 4u
#define PT_VNET_GSO_UDP_L4 5u
#define PT_VNET_GSO_ECN 0x80u

// Opens /dev/net/tun and attaches `name` (at most 15 bytes) with IFF_TUN|IFF_NO_PI, IFF_VNET_HDR if asked,
// IFF_MULTI_QUEUE if asked; non-blocking, close-on-exec, not persistent. An interface of that name must not
// exist yet (-EBUSY), but for a further queue of a multi-queue device. The kernel's final name is written to
// `final_name` (16 bytes). Returns the descriptor or -errno; `*stage` tells the call that failed:
// 1 open, 2 TUNSETIFF, 3 TUNSETVNETHDRSZ.
#define PT_TUN_SINGLE_QUEUE 0u
#define PT_TUN_FIRST_QUEUE 1u
#define PT_TUN_FURTHER_QUEUE 2u
int32_t pt_tun_open(const char *name, uint32_t vnet_header, uint32_t multi_queue, char final_name[16], int32_t *stage);
// What a descriptor from elsewhere is: 0 when it is the only queue of a TUN interface (without packet information) whose
// name is then in `final_name` (16 bytes) and whose virtio-net header is in `*vnet_header` (1 or 0, set to the size used
// here); it becomes non-blocking. -EINVAL for every other thing, -errno when the interface is gone.
int32_t pt_tun_adopt(int32_t fd, char final_name[16], uint32_t *vnet_header);
// TUNSETOFFLOAD with exactly these bits. 0 or -errno.
int32_t pt_tun_set_offload(int32_t fd, uint32_t bits);
// Plain read/write of one packet, EINTR retried. Bytes or -errno.
int64_t pt_read(int32_t fd, void *buffer, size_t length);
int64_t pt_write(int32_t fd, const void *buffer, size_t length);
// One packet gathered from `count` slices (struct iovec layout: base, length). Bytes or -errno.
typedef struct { void *base; size_t length; } pt_slice;
int64_t pt_writev(int32_t fd, const pt_slice *slices, int32_t count);

#endif
