// See pt_upnp.h. For libminiupnpc 2.2 (API 17 and later).
#include "pt_upnp.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <miniupnpc/miniupnpc.h>
#include <miniupnpc/upnpcommands.h>
#include <miniupnpc/upnperrors.h>

// Milliseconds that routers have to answer the search.
#define PT_SEARCH 2000
// Errors of AddPortMapping (WANIPConnection).
#define PT_CONFLICT 718
#define PT_ONLY_PERMANENT 725

typedef struct {
    struct UPNPUrls urls;
    struct IGDdatas data;
    char local[16];
} pt_router;

static void text(uint32_t address, char out[16]) {
    struct in_addr raw = {htonl(address)};
    inet_ntop(AF_INET, &raw, out, 16);
}

// Whether the URL's host is the gateway.
static int is_at(const char *url, const char *gateway) {
    size_t length = strlen(gateway);
    if (url == NULL || strncmp(url, "http://", 7) != 0 || strncmp(url + 7, gateway, length) != 0) return 0;
    return url[7 + length] == ':' || url[7 + length] == '/';
}

static int32_t open_router(pt_router *router, uint32_t gateway, uint32_t local, char *problem, size_t size) {
    char there[16], lan[64];
    text(gateway, there);
    text(local, router->local);
    int error = 0, found = 0;
    struct UPNPDev *devices = upnpDiscover(PT_SEARCH, router->local, NULL, UPNP_LOCAL_PORT_ANY, 0, 2, &error);
    for (struct UPNPDev *device = devices; device != NULL && !found; device = device->pNext) {
        if (!is_at(device->descURL, there)) continue;
        if (UPNP_GetIGDFromUrl(device->descURL, &router->urls, &router->data, lan, sizeof lan) != 1) continue;
        // The router shall not send us elsewhere.
        if (is_at(router->urls.controlURL, there) && router->data.first.servicetype[0] != 0) {
            found = 1;
        } else {
            FreeUPNPUrls(&router->urls);
        }
    }
    if (!found) {
        const char *reason = devices == NULL ? "no router answers" : "the gateway is none of the devices that answer";
        snprintf(problem, size, "%s", reason);
    }
    freeUPNPDevlist(devices);
    return found ? 0 : -1;
}

int32_t pt_upnp_find(uint32_t gateway, uint32_t local, char *problem, size_t size) {
    pt_router router;
    if (open_router(&router, gateway, local, problem, size) != 0) return -1;
    FreeUPNPUrls(&router.urls);
    return 0;
}

static int add(pt_router *router, uint16_t external, uint16_t internal, uint32_t lifetime) {
    char outer[8], inner[8], seconds[16];
    snprintf(outer, sizeof outer, "%u", external);
    snprintf(inner, sizeof inner, "%u", internal);
    snprintf(seconds, sizeof seconds, "%u", lifetime);
    return UPNP_AddPortMapping(router->urls.controlURL, router->data.first.servicetype, outer, inner, router->local,
                               "pilot-tun", "UDP", NULL, seconds);
}

int32_t pt_upnp_map(uint32_t gateway, uint32_t local, uint16_t internal_port, uint32_t lifetime,
                    uint32_t *external_address, uint16_t *external_port, char *problem, size_t size) {
    pt_router router;
    if (open_router(&router, gateway, local, problem, size) != 0) return -1;
    char address[64] = "";
    struct in_addr raw;
    int result = UPNP_GetExternalIPAddress(router.urls.controlURL, router.data.first.servicetype, address);
    if (result != UPNPCOMMAND_SUCCESS || inet_pton(AF_INET, address, &raw) != 1) {
        snprintf(problem, size, "the router tells no external address");
        FreeUPNPUrls(&router.urls);
        return -1;
    }
    uint16_t port = *external_port;
    // Another program's, or another machine's, port is left alone: the next ones are tried.
    for (int tries = 0; tries < 4; tries++) {
        result = add(&router, port, internal_port, lifetime);
        if (result == PT_ONLY_PERMANENT && lifetime != 0) {
            lifetime = 0;
            result = add(&router, port, internal_port, 0);
        }
        if (result != PT_CONFLICT) break;
        port = port >= 65000 ? 1025 : port + 1;
    }
    FreeUPNPUrls(&router.urls);
    if (result != UPNPCOMMAND_SUCCESS) {
        const char *known = strupnperror(result);
        snprintf(problem, size, "the router refuses: %s (%d)", known == NULL ? "error" : known, result);
        return -1;
    }
    *external_address = ntohl(raw.s_addr);
    *external_port = port;
    return 0;
}

int32_t pt_upnp_unmap(uint32_t gateway, uint32_t local, uint16_t external_port) {
    pt_router router;
    char problem[64], port[8];
    if (open_router(&router, gateway, local, problem, sizeof problem) != 0) return -1;
    snprintf(port, sizeof port, "%u", external_port);
    int result = UPNP_DeletePortMapping(router.urls.controlURL, router.data.first.servicetype, port, "UDP", NULL);
    FreeUPNPUrls(&router.urls);
    return result == UPNPCOMMAND_SUCCESS ? 0 : -1;
}
