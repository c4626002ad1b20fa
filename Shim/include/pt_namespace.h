// User and network namespaces without root, and a command that runs in them. Used by `pilot-tun run`.
#ifndef PT_NAMESPACE_H
#define PT_NAMESPACE_H

#include <stdint.h>

// Where an entry into a user namespace failed.
#define PT_ENTER_UNSHARE 1
#define PT_ENTER_MAP 2

// Moves this process, which must have one thread, into a user namespace of its own, in which it has all capabilities
// and its user and group keep their numbers. 0 or -errno with the stage.
int32_t pt_user_namespace_enter(int32_t *stage);
// The network namespace of the calling thread: descriptor or -errno.
int32_t pt_network_namespace_open(void);
// Effective group of this process.
uint32_t pt_effective_group(void);
// Moves the calling thread into it. 0 or -errno.
int32_t pt_network_namespace_enter(int32_t fd);

// A socket for NIO: bound to the address and the port, listening when `listens` (TCP, else UDP). fd or -errno.
int32_t pt_socket_bound(const uint8_t address[16], uint16_t port, int32_t listens);

// Where the start of a command failed.
#define PT_START_FORK 1
#define PT_START_MOUNT 2
#define PT_START_EXECUTE 3

typedef struct {
    // Both end with NULL.
    char *const *arguments;
    char *const *environment;
    // What stands in for the file at `resolver_place`, in a mount namespace of the command's own; NULL: nothing.
    const char *resolver_file;
    const char *resolver_place;
    // Descriptors above 2 that the command inherits, ascending; all others are closed.
    const int32_t *kept;
    int32_t kept_count;
    // Soft limit of open files.
    uint64_t file_limit;
} pt_command;

// Starts the command in the network namespace of the calling thread, whose end sends it SIGTERM. Its signals are as at a
// program's start but for those that were ignored (SIGPIPE is not). Process id, or -errno with the stage.
int32_t pt_command_start(const pt_command *command, int32_t *stage);

#endif
