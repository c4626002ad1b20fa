// UPnP-IGD at the default gateway, by miniupnpc: what TunControl asks when neither PCP nor NAT-PMP is spoken there.
// Each call searches anew and takes seconds. Only a device that describes itself at the gateway's own address counts.
#ifndef PT_UPNP_H
#define PT_UPNP_H

#include <stddef.h>
#include <stdint.h>

// Addresses are IPv4 in host order. `problem` gets a text for people; all calls give 0, or -1 with such a text.

// Whether there is such a router.
int32_t pt_upnp_find(uint32_t gateway, uint32_t local, char *problem, size_t size);
// Maps UDP `*external_port` (another one when that is taken) to `internal_port` of `local` for `lifetime` seconds, or
// for good where a router can do nothing else.
int32_t pt_upnp_map(uint32_t gateway, uint32_t local, uint16_t internal_port, uint32_t lifetime,
                    uint32_t *external_address, uint16_t *external_port, char *problem, size_t size);
int32_t pt_upnp_unmap(uint32_t gateway, uint32_t local, uint16_t external_port);

#endif
