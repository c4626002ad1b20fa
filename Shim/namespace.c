// User and network namespaces without root, and a command that runs in them. See pt_namespace.h.
#define _GNU_SOURCE
#include "pt_namespace.h"

#include "pt_system.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/close_range.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static int32_t write_map(const char *path, unsigned number) {
    char line[48];
    int length = snprintf(line, sizeof line, "%u %u 1\n", number, number);
    return pt_file_write(path, line, (size_t)length);
}

int32_t pt_user_namespace_enter(int32_t *stage) {
    unsigned user = geteuid();
    unsigned group = getegid();
    *stage = PT_ENTER_UNSHARE;
    if (unshare(CLONE_NEWUSER) < 0) return -errno;
    *stage = PT_ENTER_MAP;
    // Without this the kernel takes no map of groups from a process without rights outside (user_namespaces(7)).
    int32_t result = pt_file_write("/proc/self/setgroups", "deny", 4);
    if (result == 0) result = write_map("/proc/self/uid_map", user);
    if (result == 0) result = write_map("/proc/self/gid_map", group);
    return result;
}

int32_t pt_network_namespace_open(void) {
    int fd = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

uint32_t pt_effective_group(void) { return getegid(); }

int32_t pt_network_namespace_enter(int32_t fd) { return setns(fd, CLONE_NEWNET) < 0 ? -errno : 0; }

int32_t pt_socket_bound(const uint8_t address[16], uint16_t port, int32_t listens) {
    int fd = socket(AF_INET6, (listens ? SOCK_STREAM : SOCK_DGRAM) | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) return -errno;
    int on = 1;
    struct sockaddr_in6 name = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
    memcpy(&name.sin6_addr, address, 16);
    if ((listens && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0) ||
        bind(fd, (struct sockaddr *)&name, sizeof name) < 0 || (listens && listen(fd, 64) < 0)) {
        int32_t error = -errno;
        close(fd);
        return error;
    }
    return fd;
}

// MARK: The command. Between fork and exec only system calls: other threads of the parent may have held any lock.

// Resolvers that libraries ask by a Unix socket before they look at resolv.conf. They belong to the machine outside and
// know no name of the overlay, so the command does not see them.
static const char *const outside_resolvers[] = {"/run/systemd/resolve", "/run/nscd"};

static int name_resolver(const char *file, const char *place) {
    if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0) return -errno;
    for (size_t i = 0; i < sizeof outside_resolvers / sizeof outside_resolvers[0]; i++) {
        struct stat status;
        if (stat(outside_resolvers[i], &status) < 0) continue;
        if (mount("tmpfs", outside_resolvers[i], "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "size=64k,mode=755") < 0) {
            return -errno;
        }
    }
    // resolv.conf may have stood in one of them.
    int fd = open(place, O_RDONLY | O_CREAT | O_CLOEXEC, 0644);
    if (fd >= 0) close(fd);
    return mount(file, place, NULL, MS_BIND, NULL) < 0 ? -errno : 0;
}

// Who was root outside has no rights of root inside either, but those of file capabilities that ping and servers need.
static void drop_rights(void) {
    if (geteuid() != 0) return;
    for (int right = 0; prctl(PR_CAPBSET_READ, right, 0, 0, 0) >= 0; right++) {
        if (right != CAP_NET_RAW && right != CAP_NET_BIND_SERVICE) prctl(PR_CAPBSET_DROP, right, 0, 0, 0);
    }
}

// Libraries open some descriptors without O_CLOEXEC. The report of a failure is among those that close at exec only.
static void close_all_but(const int32_t *kept, int32_t count) {
    unsigned from = 3;
    for (int32_t i = 0; i < count; i++) {
        if ((unsigned)kept[i] > from) close_range(from, (unsigned)kept[i] - 1, CLOSE_RANGE_CLOEXEC);
        from = (unsigned)kept[i] + 1;
    }
    close_range(from, ~0u, CLOSE_RANGE_CLOEXEC);
}

static void reset_signals(void) {
    for (int number = 1; number < NSIG; number++) {
        struct sigaction action;
        if (sigaction(number, NULL, &action) < 0) continue;
        if (action.sa_handler == SIG_IGN && number != SIGPIPE) continue;
        signal(number, SIG_DFL);
    }
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

static void become(const pt_command *command, pid_t parent, int report) {
    int32_t failure[2] = {PT_START_MOUNT, 0};
    prctl(PR_SET_PDEATHSIG, SIGTERM, 0, 0, 0);
    if (getppid() != parent) _exit(125);
    if (command->resolver_file) failure[1] = name_resolver(command->resolver_file, command->resolver_place);
    if (failure[1] == 0) {
        struct rlimit limit;
        if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && command->file_limit < limit.rlim_max) {
            limit.rlim_cur = command->file_limit;
            setrlimit(RLIMIT_NOFILE, &limit);
        }
        drop_rights();
        close_all_but(command->kept, command->kept_count);
        reset_signals();
        failure[0] = PT_START_EXECUTE;
        execvpe(command->arguments[0], command->arguments, command->environment);
        failure[1] = -errno;
    }
    (void)!write(report, failure, sizeof failure);
    _exit(125);
}

int32_t pt_command_start(const pt_command *command, int32_t *stage) {
    *stage = PT_START_FORK;
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0) return -errno;
    // No handler of ours may run in the child.
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pid_t parent = getpid();
    pid_t child = fork();
    if (child == 0) become(command, parent, ends[1]);
    int32_t error = -errno;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    close(ends[1]);
    int32_t failure[2] = {0, 0};
    ssize_t count = 0;
    if (child > 0) {
        do {
            count = read(ends[0], failure, sizeof failure);
        } while (count < 0 && errno == EINTR);
    }
    close(ends[0]);
    if (child < 0) return error;
    if (count != sizeof failure) return child;
    *stage = failure[0];
    while (waitpid(child, NULL, 0) < 0 && errno == EINTR) {
    }
    return failure[1];
}
