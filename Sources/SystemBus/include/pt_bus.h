// The system bus, for one purpose: telling systemd-resolved who answers on our link. sd-bus of libsystemd, loaded when
// the node runs: without libsystemd (a minimal container) it starts all the same and says that there is no bus.
// Used by TunControl's ResolvedThread only; one thread per connection.
#ifndef PT_BUS_H
#define PT_BUS_H

#include <stddef.h>
#include <stdint.h>

typedef struct pt_bus pt_bus;

// A text for people, and the D-Bus error name when the other end sent one (else empty).
typedef struct {
    char name[96];
    char text[256];
} pt_bus_problem;

// Connects to the system bus and listens for what concerns resolved. NULL with a problem.
pt_bus *pt_bus_open(pt_bus_problem *problem);
void pt_bus_close(pt_bus *bus);

// resolved came, went or was replaced.
#define PT_BUS_OWNER 1u
// resolved says that its DNS settings changed (anyone's, ours too).
#define PT_BUS_SETTINGS 2u
// The connection is gone: close it.
#define PT_BUS_LOST 4u
// `wake` can be read.
#define PT_BUS_WOKEN 8u

// Waits at most `milliseconds` (-1: for ever); the OR of the above, 0 when time is up. `bus` may be NULL.
uint32_t pt_bus_wait(pt_bus *bus, int32_t wake, int32_t milliseconds);

// Who runs resolved, as the bus sees it. 1; 0 when nobody does; -1 with a problem. Never starts it.
int32_t pt_resolved_find(pt_bus *bus, uint32_t *pid, uint32_t *user, pt_bus_problem *problem);

// What resolved knows about a link. Domains are separated by blanks; those for routing only begin with ~.
typedef struct {
    uint32_t server_count;
    uint8_t server[16];
    uint32_t is_default_route;
    char domains[512];
} pt_resolved_link;

// All of these: 0, or -1 with a problem.
int32_t pt_resolved_read(pt_bus *bus, uint32_t index, pt_resolved_link *link, pt_bus_problem *problem);
// One IPv6 server for these domains and nothing else: no default route, LLMNR, mDNS, DNSSEC or DNS over TLS.
int32_t pt_resolved_apply(pt_bus *bus, uint32_t index, const uint8_t server[16], const char *domains,
                          pt_bus_problem *problem);
int32_t pt_resolved_revert(pt_bus *bus, uint32_t index, pt_bus_problem *problem);

#endif
