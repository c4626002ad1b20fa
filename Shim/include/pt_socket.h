// Stream sockets (TCP over IPv6, Unix) and epoll. Gateway's thread calls these; never per packet.
#ifndef PT_SOCKET_H
#define PT_SOCKET_H

#include <stddef.h>
#include <stdint.h>

// One thing that happened to a descriptor.
typedef struct {
    uint64_t tag;
    uint32_t events;
    uint32_t reserved;
} pt_happened;

#define PT_READABLE 1u
#define PT_WRITABLE 2u
// The other end closed or the socket failed.
#define PT_HUNG_UP 4u

// An epoll instance: fd or -errno.
int32_t pt_epoll_open(void);
// Watches `fd`, edge-triggered for reading, writing and hang-ups, under this tag. 0 or -errno.
int32_t pt_epoll_add(int32_t epoll, int32_t fd, uint64_t tag);
// The same, level-triggered and for reading only.
int32_t pt_epoll_add_level(int32_t epoll, int32_t fd, uint64_t tag);
// Waits at most `timeout` milliseconds (-1: for ever); the number of entries written (at most `count`, at most 256),
// 0 on timeout or a signal, -errno on error.
int32_t pt_epoll_wait(int32_t epoll, pt_happened *happened, int32_t count, int32_t timeout);

// All sockets: non-blocking, close-on-exec. Addresses are 16 bytes of IPv6, ports in host order.
// Listens on the address although no interface may carry it yet (IPV6_FREEBIND), at any free port. fd or -errno.
int32_t pt_tcp_listen(const uint8_t address[16], int32_t backlog, uint16_t *port);
// The next connection and who opened it. fd or -errno (-EAGAIN: none).
int32_t pt_tcp_accept(int32_t listener, uint8_t peer[16], uint16_t *port);
// A socket bound to the address, at a free port. fd or -errno.
int32_t pt_tcp_bind(const uint8_t address[16], uint16_t *port);
// Begins to connect. 0, or -errno (-EINPROGRESS is 0: `pt_socket_error` tells how it ended).
int32_t pt_tcp_connect(int32_t fd, const uint8_t address[16], uint16_t port);
// Closes with RST instead of FIN.
void pt_tcp_abort(int32_t fd);
// SO_ERROR, which it clears: 0 or -errno.
int32_t pt_socket_error(int32_t fd);
// Our own address, as the kernel would take it towards another (IPv4 as ::ffff:a.b.c.d). Nothing is sent. 0 or -errno.
int32_t pt_source_address(const uint8_t address[16], uint16_t port, uint8_t source[16]);
// Bytes sent or received (0: end of file), or -errno. Never raises SIGPIPE.
int64_t pt_socket_send(int32_t fd, const void *bytes, size_t length);
int64_t pt_socket_receive(int32_t fd, void *bytes, size_t length);
// Bytes that were sent and that the other end has not acknowledged, or -errno.
int32_t pt_socket_unacknowledged(int32_t fd);
// Lets this process have as many open files as the hard limit allows.
void pt_raise_file_limit(void);
// No more bytes to the other end. 0 or -errno.
int32_t pt_socket_end(int32_t fd);

// Listens on a Unix socket that is never reachable with rights wider than 0600: bound in a new directory of mode 0700
// beside the path, then renamed into place. What stood at the path is replaced. fd or -errno.
int32_t pt_unix_listen(const char *path, int32_t backlog);
int32_t pt_unix_accept(int32_t listener);
// Connects to it. Without waiting for a place in its backlog (-EAGAIN then) when `now_or_never`. fd or -errno.
int32_t pt_unix_connect(const char *path, uint32_t now_or_never);

#endif
