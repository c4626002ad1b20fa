// What Swift cannot say: ioctls of /dev/net/tun, netlink by libmnl, batched UDP with control messages, BoringSSL.
// Rules: fixed-width types only, kernel headers in the .c files, -errno on failure, no globals touched, no policy.
#ifndef PILOT_TUN_SHIM_H
#define PILOT_TUN_SHIM_H

#include "pt_tun.h"
#include "pt_netlink.h"
#include "pt_udp.h"
#include "pt_crypto.h"
#include "pt_memory.h"
#include "pt_checksum.h"
#include "pt_system.h"
#include "pt_socket.h"
#include "pt_notify.h"
#include "pt_namespace.h"
#include "pt_journal.h"

#endif
