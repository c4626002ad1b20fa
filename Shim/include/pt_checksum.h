// The Internet checksum (RFC 1071), vectorised. Per packet, called from Engine.
#ifndef PT_CHECKSUM_H
#define PT_CHECKSUM_H

#include <stddef.h>
#include <stdint.h>

// One's complement sum of `length` bytes in network order, not folded, added to `initial`.
// Invariant under fold: pt_checksum_fold(pt_checksum_add(a, …)) is the RFC 1071 sum, the host-order value of the
// network bytes. An odd last byte is the high half of its word: sums of pieces add if all but the last are even.
uint64_t pt_checksum_add(uint64_t initial, const void *data, size_t length);
// The same without vector instructions, for machines that have none and for tests.
uint64_t pt_checksum_add_scalar(uint64_t initial, const void *data, size_t length);
static inline uint16_t pt_checksum_fold(uint64_t sum) {
    sum = (sum & 0xffffffffu) + (sum >> 32);
    sum = (sum & 0xffffffffu) + (sum >> 32);
    sum = (sum & 0xffffu) + (sum >> 16);
    sum = (sum & 0xffffu) + (sum >> 16);
    sum = (sum & 0xffffu) + (sum >> 16);
    return (uint16_t)sum;
}

#endif
