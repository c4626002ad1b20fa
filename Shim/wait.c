// Waiting for room in a socket's send buffer. Called by Engine when the kernel says EAGAIN.
#include "shim.h"

#include <errno.h>
#include <poll.h>

int32_t pt_wait_writable(int32_t fd, int32_t timeout) {
    struct pollfd descriptor = {.fd = fd, .events = POLLOUT, .revents = 0};
    int result = poll(&descriptor, 1, timeout);
    return result < 0 ? -errno : result;
}
