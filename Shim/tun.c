// /dev/net/tun: open and attach, offload bits, reads and writes of one packet. See pt_tun.h.
#define _GNU_SOURCE
#include "pt_tun.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <unistd.h>

// Linux 6.2 and newer; the headers of Debian 12 (6.1) do not know them.
#ifndef TUN_F_USO4
#define TUN_F_USO4 0x20
#endif
#ifndef TUN_F_USO6
#define TUN_F_USO6 0x40
#endif

_Static_assert(sizeof(pt_slice) == sizeof(struct iovec), "pt_slice has the layout of struct iovec");
_Static_assert(offsetof(pt_slice, base) == offsetof(struct iovec, iov_base), "base stands where iov_base does");
_Static_assert(offsetof(pt_slice, length) == offsetof(struct iovec, iov_len), "length stands where iov_len does");

int32_t pt_tun_open(const char *name, uint32_t vnet_header, uint32_t multi_queue, char final_name[16], int32_t *stage) {
    *stage = 2;
    if (strlen(name) >= IFNAMSIZ) return -ENAMETOOLONG;

    *stage = 1;
    int fd;
    do {
        fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    } while (fd < 0 && errno == EINTR);
    if (fd < 0) return -errno;

    *stage = 2;
    struct ifreq request;
    memset(&request, 0, sizeof request);
    memcpy(request.ifr_name, name, strlen(name));
    unsigned flags = IFF_TUN | IFF_NO_PI;
    if (vnet_header) flags |= IFF_VNET_HDR;
    if (multi_queue) flags |= IFF_MULTI_QUEUE;
    // Without this a second program would silently become a further queue of a multi-queue device.
    if (multi_queue != PT_TUN_FURTHER_QUEUE) flags |= IFF_TUN_EXCL;
    request.ifr_flags = (short)flags;
    if (ioctl(fd, TUNSETIFF, &request) < 0) {
        int32_t error = -errno;
        close(fd);
        return error;
    }
    memcpy(final_name, request.ifr_name, 16);
    final_name[15] = 0;

    if (vnet_header) {
        *stage = 3;
        int size = PT_VNET_HEADER_SIZE;
        if (ioctl(fd, TUNSETVNETHDRSZ, &size) < 0) {
            int32_t error = -errno;
            close(fd);
            return error;
        }
    }
    *stage = 0;
    return fd;
}

int32_t pt_tun_adopt(int32_t fd, char final_name[16], uint32_t *vnet_header) {
    struct stat status;
    if (fstat(fd, &status) < 0) return -errno;
    // Character device 10:200 (devices.txt): another driver might know TUNGETIFF's number as something else.
    if (!S_ISCHR(status.st_mode) || status.st_rdev != makedev(10, 200)) return -EINVAL;
    struct ifreq request;
    memset(&request, 0, sizeof request);
    if (ioctl(fd, TUNGETIFF, &request) < 0) return -errno;
    const unsigned flags = (unsigned short)request.ifr_flags;
    if (!(flags & IFF_TUN) || !(flags & IFF_NO_PI) || (flags & IFF_MULTI_QUEUE)) return -EINVAL;
    *vnet_header = (flags & IFF_VNET_HDR) != 0;
    if (*vnet_header) {
        int size = PT_VNET_HEADER_SIZE;
        if (ioctl(fd, TUNSETVNETHDRSZ, &size) < 0) return -errno;
    }
    const int mode = fcntl(fd, F_GETFL);
    if (mode < 0 || fcntl(fd, F_SETFL, mode | O_NONBLOCK) < 0) return -errno;
    memcpy(final_name, request.ifr_name, 16);
    final_name[15] = 0;
    return 0;
}

int32_t pt_tun_set_offload(int32_t fd, uint32_t bits) {
    unsigned long wanted = 0;
    if (bits & PT_TUN_CSUM) wanted |= TUN_F_CSUM;
    if (bits & PT_TUN_TSO4) wanted |= TUN_F_TSO4;
    if (bits & PT_TUN_TSO6) wanted |= TUN_F_TSO6;
    if (bits & PT_TUN_USO4) wanted |= TUN_F_USO4;
    if (bits & PT_TUN_USO6) wanted |= TUN_F_USO6;
    return ioctl(fd, TUNSETOFFLOAD, wanted) < 0 ? -errno : 0;
}

int64_t pt_read(int32_t fd, void *buffer, size_t length) {
    ssize_t count;
    do {
        count = read(fd, buffer, length);
    } while (count < 0 && errno == EINTR);
    return count < 0 ? -errno : count;
}

int64_t pt_write(int32_t fd, const void *buffer, size_t length) {
    ssize_t count;
    do {
        count = write(fd, buffer, length);
    } while (count < 0 && errno == EINTR);
    return count < 0 ? -errno : count;
}

int64_t pt_writev(int32_t fd, const pt_slice *slices, int32_t count) {
    ssize_t written;
    do {
        written = writev(fd, (const struct iovec *)(const void *)slices, count);
    } while (written < 0 && errno == EINTR);
    return written < 0 ? -errno : written;
}
