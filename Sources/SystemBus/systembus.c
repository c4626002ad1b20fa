// See pt_bus.h. Written against libsystemd 252; everything called here exists since 240.
#include "pt_bus.h"

#include <dlfcn.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include <systemd/sd-bus.h>

// Microseconds that one call may take: resolved answers within milliseconds, or hangs. The node's end waits for one.
#define PT_CALL_LIMIT (2 * 1000 * 1000)
// Messages that are taken at once: the rest after a look at who else wants something.
#define PT_MOST_MESSAGES 256

#define PT_RESOLVED "org.freedesktop.resolve1"
#define PT_RESOLVED_PATH "/org/freedesktop/resolve1"
#define PT_MANAGER "org.freedesktop.resolve1.Manager"
#define PT_LINK "org.freedesktop.resolve1.Link"

#define PT_FUNCTIONS(f)                                                                                              \
    f(open_system) f(flush_close_unref) f(set_method_call_timeout) f(add_match) f(process) f(get_fd) f(get_events)    \
    f(get_timeout) f(is_open) f(call) f(error_free) f(get_name_creds) f(creds_get_pid) f(creds_get_euid)              \
    f(creds_unref) f(message_new_method_call) f(message_set_auto_start) f(message_append) f(message_append_array)    \
    f(message_open_container) f(message_close_container) f(message_unref) f(message_read) f(message_read_array)      \
    f(message_enter_container) f(message_exit_container) f(message_skip)

#define PT_POINTER(name) __typeof__(sd_bus_##name) *name;
static struct { PT_FUNCTIONS(PT_POINTER) } sd;

struct pt_bus {
    sd_bus *bus;
    uint32_t seen;
};

static int32_t fail(pt_bus_problem *problem, const char *name, const char *text) {
    snprintf(problem->name, sizeof problem->name, "%s", name == NULL ? "" : name);
    snprintf(problem->text, sizeof problem->text, "%s", text == NULL ? "" : text);
    return -1;
}

// libsystemd stays loaded: unloading it is not safe.
static int32_t load(pt_bus_problem *problem) {
    static int32_t is_loaded = 0;
    if (is_loaded) return 0;
    void *library = dlopen("libsystemd.so.0", RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) return fail(problem, NULL, "libsystemd.so.0 is not installed");
#define PT_FIND(function)                                                                                            \
    sd.function = (__typeof__(sd.function))dlsym(library, "sd_bus_" #function);                                       \
    if (sd.function == NULL) return fail(problem, NULL, "libsystemd.so.0 is too old: no sd_bus_" #function);
    PT_FUNCTIONS(PT_FIND)
    is_loaded = 1;
    return 0;
}

static int note_owner(sd_bus_message *message, void *bus, sd_bus_error *error) {
    (void)message, (void)error;
    ((pt_bus *)bus)->seen |= PT_BUS_OWNER;
    return 0;
}

static int note_settings(sd_bus_message *message, void *bus, sd_bus_error *error) {
    (void)message, (void)error;
    ((pt_bus *)bus)->seen |= PT_BUS_SETTINGS;
    return 0;
}

pt_bus *pt_bus_open(pt_bus_problem *problem) {
    if (load(problem) < 0) return NULL;
    pt_bus *bus = calloc(1, sizeof *bus);
    if (bus == NULL) {
        fail(problem, NULL, "out of memory");
        return NULL;
    }
    int result = sd.open_system(&bus->bus);
    if (result >= 0) result = sd.set_method_call_timeout(bus->bus, PT_CALL_LIMIT);
    if (result >= 0) {
        result = sd.add_match(
            bus->bus, NULL,
            "type='signal',sender='org.freedesktop.DBus',path='/org/freedesktop/DBus',"
            "interface='org.freedesktop.DBus',member='NameOwnerChanged',arg0='" PT_RESOLVED "'",
            note_owner, bus);
    }
    if (result >= 0) {
        result = sd.add_match(
            bus->bus, NULL,
            "type='signal',sender='" PT_RESOLVED "',path='" PT_RESOLVED_PATH "',"
            "interface='org.freedesktop.DBus.Properties',member='PropertiesChanged',arg0='" PT_MANAGER "'",
            note_settings, bus);
    }
    if (result >= 0) return bus;
    fail(problem, NULL, strerror(-result));
    pt_bus_close(bus);
    return NULL;
}

void pt_bus_close(pt_bus *bus) {
    if (bus == NULL) return;
    if (bus->bus != NULL) sd.flush_close_unref(bus->bus);
    free(bus);
}

// Milliseconds to wait for the bus library's own timers, at most `limit` (-1: none).
static int until(sd_bus *bus, int limit) {
    uint64_t due = UINT64_MAX;
    if (sd.get_timeout(bus, &due) < 0 || due == UINT64_MAX) return limit;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    uint64_t time = (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
    uint64_t rest = due > time ? (due - time) / 1000 + 1 : 0;
    return limit >= 0 && rest > (uint64_t)limit ? limit : (int)(rest > 60000 ? 60000 : rest);
}

static uint32_t drain(pt_bus *bus) {
    int result = 1;
    for (int count = 0; count < PT_MOST_MESSAGES && result > 0; count++) result = sd.process(bus->bus, NULL);
    uint32_t seen = bus->seen;
    bus->seen = 0;
    if (result < 0 || sd.is_open(bus->bus) <= 0) seen |= PT_BUS_LOST;
    return seen;
}

uint32_t pt_bus_wait(pt_bus *bus, int32_t wake, int32_t milliseconds) {
    // What came while a call waited for its answer lies in the library's queue: the descriptor does not tell.
    uint32_t seen = bus == NULL ? 0 : drain(bus);
    if (seen != 0) return seen;
    struct pollfd ends[2] = {{.fd = wake, .events = POLLIN}, {.fd = -1}};
    int limit = milliseconds;
    if (bus != NULL) {
        int events = sd.get_events(bus->bus);
        ends[1].fd = sd.get_fd(bus->bus);
        if (events < 0 || ends[1].fd < 0) return PT_BUS_LOST;
        ends[1].events = (short)events;
        limit = until(bus->bus, limit);
    }
    if (poll(ends, 2, limit) < 0) return 0;
    if (ends[0].revents != 0) seen |= PT_BUS_WOKEN;
    return bus == NULL ? seen : seen | drain(bus);
}

static int32_t fail_with(pt_bus_problem *problem, int result, sd_bus_error *error) {
    fail(problem, error->name, error->message != NULL ? error->message : strerror(-result));
    sd.error_free(error);
    return -1;
}

int32_t pt_resolved_find(pt_bus *bus, uint32_t *pid, uint32_t *user, pt_bus_problem *problem) {
    sd_bus_creds *creds = NULL;
    int result = sd.get_name_creds(bus->bus, PT_RESOLVED, SD_BUS_CREDS_PID | SD_BUS_CREDS_EUID, &creds);
    if (result == -ENXIO || result == -ESRCH) return 0;
    if (result < 0) return fail(problem, NULL, strerror(-result));
    pid_t process = 0;
    uid_t uid = (uid_t)-1;
    // dbus-daemon tells the effective user only. A bus behind a proxy may tell nothing; then nobody knows.
    sd.creds_get_pid(creds, &process);
    sd.creds_get_euid(creds, &uid);
    sd.creds_unref(creds);
    *pid = process > 0 ? (uint32_t)process : 0;
    *user = (uint32_t)uid;
    return 1;
}

// A call to resolved that does not start it.
static int make(pt_bus *bus, sd_bus_message **message, const char *path, const char *interface, const char *member) {
    int result = sd.message_new_method_call(bus->bus, message, PT_RESOLVED, path, interface, member);
    return result < 0 ? result : sd.message_set_auto_start(*message, 0);
}

// Sends and lets go of `message`; `result` is how making it went.
static int32_t finish(
    pt_bus *bus, sd_bus_message *message, int result, sd_bus_message **reply, pt_bus_problem *problem) {
    sd_bus_error error = SD_BUS_ERROR_NULL;
    if (result >= 0) result = sd.call(bus->bus, message, 0, &error, reply);
    if (message != NULL) sd.message_unref(message);
    return result < 0 ? fail_with(problem, result, &error) : 0;
}

// A method of the manager that takes the link and one word.
static int32_t set_word(
    pt_bus *bus, const char *member, uint32_t index, const char *type, const char *word, int flag,
    pt_bus_problem *problem) {
    sd_bus_message *message = NULL;
    int result = make(bus, &message, PT_RESOLVED_PATH, PT_MANAGER, member);
    if (result >= 0) result = sd.message_append(message, "i", (int32_t)index);
    if (result >= 0 && word != NULL) result = sd.message_append(message, type, word);
    if (result >= 0 && word == NULL && type != NULL) result = sd.message_append(message, type, flag);
    int32_t done = finish(bus, message, result, NULL, problem);
    // Older releases lack some; they lack what it would switch off as well.
    return done < 0 && strcmp(problem->name, "org.freedesktop.DBus.Error.UnknownMethod") == 0 ? 0 : done;
}

static int32_t set_domains(pt_bus *bus, uint32_t index, const char *domains, pt_bus_problem *problem) {
    sd_bus_message *message = NULL;
    int result = make(bus, &message, PT_RESOLVED_PATH, PT_MANAGER, "SetLinkDomains");
    if (result >= 0) result = sd.message_append(message, "i", (int32_t)index);
    if (result >= 0) result = sd.message_open_container(message, 'a', "(sb)");
    char copy[512], *rest = NULL;
    snprintf(copy, sizeof copy, "%s", domains);
    for (char *word = strtok_r(copy, " ", &rest); word != NULL && result >= 0; word = strtok_r(NULL, " ", &rest)) {
        int is_routing = word[0] == '~';
        result = sd.message_append(message, "(sb)", word + is_routing, is_routing);
    }
    if (result >= 0) result = sd.message_close_container(message);
    return finish(bus, message, result, NULL, problem);
}

static int32_t set_server(pt_bus *bus, uint32_t index, const uint8_t server[16], pt_bus_problem *problem) {
    sd_bus_message *message = NULL;
    int result = make(bus, &message, PT_RESOLVED_PATH, PT_MANAGER, "SetLinkDNS");
    if (result >= 0) result = sd.message_append(message, "i", (int32_t)index);
    if (result >= 0) result = sd.message_open_container(message, 'a', "(iay)");
    if (result >= 0) result = sd.message_open_container(message, 'r', "iay");
    if (result >= 0) result = sd.message_append(message, "i", (int32_t)AF_INET6);
    if (result >= 0) result = sd.message_append_array(message, 'y', server, 16);
    if (result >= 0) result = sd.message_close_container(message);
    if (result >= 0) result = sd.message_close_container(message);
    return finish(bus, message, result, NULL, problem);
}

int32_t pt_resolved_apply(
    pt_bus *bus, uint32_t index, const uint8_t server[16], const char *domains, pt_bus_problem *problem) {
    // The server last: until the domains are there it would be asked for everything.
    if (set_word(bus, "SetLinkDefaultRoute", index, "b", NULL, 0, problem) < 0) return -1;
    if (set_word(bus, "SetLinkLLMNR", index, "s", "no", 0, problem) < 0) return -1;
    if (set_word(bus, "SetLinkMulticastDNS", index, "s", "no", 0, problem) < 0) return -1;
    if (set_word(bus, "SetLinkDNSOverTLS", index, "s", "no", 0, problem) < 0) return -1;
    if (set_word(bus, "SetLinkDNSSEC", index, "s", "no", 0, problem) < 0) return -1;
    if (set_domains(bus, index, domains, problem) < 0) return -1;
    return set_server(bus, index, server, problem);
}

int32_t pt_resolved_revert(pt_bus *bus, uint32_t index, pt_bus_problem *problem) {
    return set_word(bus, "RevertLink", index, NULL, NULL, 0, problem);
}

static int read_servers(sd_bus_message *reply, pt_resolved_link *link) {
    int result = sd.message_enter_container(reply, 'v', "a(iay)");
    if (result >= 0) result = sd.message_enter_container(reply, 'a', "(iay)");
    while (result >= 0 && (result = sd.message_enter_container(reply, 'r', "iay")) > 0) {
        int32_t family = 0;
        const void *bytes = NULL;
        size_t size = 0;
        result = sd.message_read(reply, "i", &family);
        if (result >= 0) result = sd.message_read_array(reply, 'y', &bytes, &size);
        if (result >= 0) result = sd.message_exit_container(reply);
        if (result >= 0 && link->server_count++ == 0 && family == AF_INET6 && size == 16) memcpy(link->server, bytes, 16);
    }
    if (result >= 0) result = sd.message_exit_container(reply);
    return result < 0 ? result : sd.message_exit_container(reply);
}

static int read_domains(sd_bus_message *reply, pt_resolved_link *link) {
    size_t used = 0;
    int result = sd.message_enter_container(reply, 'v', "a(sb)");
    if (result >= 0) result = sd.message_enter_container(reply, 'a', "(sb)");
    while (result >= 0) {
        const char *domain = NULL;
        int is_routing = 0;
        result = sd.message_read(reply, "(sb)", &domain, &is_routing);
        if (result <= 0) break;
        int size = snprintf(
            link->domains + used, sizeof link->domains - used, "%s%s%s", used == 0 ? "" : " ", is_routing ? "~" : "",
            domain);
        if (size > 0 && (size_t)size < sizeof link->domains - used) used += (size_t)size;
    }
    if (result >= 0) result = sd.message_exit_container(reply);
    return result < 0 ? result : sd.message_exit_container(reply);
}

static int read_properties(sd_bus_message *reply, pt_resolved_link *link) {
    int result = sd.message_enter_container(reply, 'a', "{sv}");
    while (result >= 0 && (result = sd.message_enter_container(reply, 'e', "sv")) > 0) {
        const char *name = NULL;
        result = sd.message_read(reply, "s", &name);
        if (result < 0) return result;
        if (strcmp(name, "DNS") == 0) {
            result = read_servers(reply, link);
        } else if (strcmp(name, "Domains") == 0) {
            result = read_domains(reply, link);
        } else if (strcmp(name, "DefaultRoute") == 0) {
            int flag = 0;
            result = sd.message_read(reply, "v", "b", &flag);
            link->is_default_route = (uint32_t)flag;
        } else {
            result = sd.message_skip(reply, "v");
        }
        if (result >= 0) result = sd.message_exit_container(reply);
    }
    return result;
}

int32_t pt_resolved_read(pt_bus *bus, uint32_t index, pt_resolved_link *link, pt_bus_problem *problem) {
    memset(link, 0, sizeof *link);
    sd_bus_message *message = NULL, *reply = NULL;
    int result = make(bus, &message, PT_RESOLVED_PATH, PT_MANAGER, "GetLink");
    if (result >= 0) result = sd.message_append(message, "i", (int32_t)index);
    if (finish(bus, message, result, &reply, problem) < 0) return -1;
    const char *path = NULL;
    result = sd.message_read(reply, "o", &path);
    message = NULL;
    if (result >= 0) result = make(bus, &message, path, "org.freedesktop.DBus.Properties", "GetAll");
    if (result >= 0) result = sd.message_append(message, "s", PT_LINK);
    sd.message_unref(reply);
    reply = NULL;
    if (finish(bus, message, result, &reply, problem) < 0) return -1;
    result = read_properties(reply, link);
    sd.message_unref(reply);
    return result < 0 ? fail(problem, NULL, "resolved describes the link in a way this release does not know") : 0;
}
