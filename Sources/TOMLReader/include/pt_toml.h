// TOML 1.0 by toml++, as much as a flat configuration file needs. Used by TunControl's TOMLTable.
#ifndef PT_TOML_H
#define PT_TOML_H

#include <stddef.h>
#include <stdint.h>

// Where reading stopped (both from 1), and why, for people.
typedef struct {
    uint32_t line;
    uint32_t column;
    char text[256];
} pt_toml_problem;

enum {
    PT_TOML_TEXT,
    PT_TOML_FLAG,
    PT_TOML_NUMBER,
    PT_TOML_LIST,
    // A table, a date, a number with a fraction, a list within a list.
    PT_TOML_OTHER,
};

// Nothing in it outlives the call. The elements of a list follow it, with its key and is_element set.
typedef struct {
    const char *key;
    size_t key_length;
    int32_t kind;
    int32_t is_element;
    // Of a text; not terminated, may contain NUL.
    const char *text;
    size_t text_length;
    // Of a number, or 0 and 1 of a flag.
    int64_t number;
} pt_toml_value;

#ifdef __cplusplus
extern "C" {
#endif

// Shows `visit` every value of the top level, in the order of their keys. Gives 0, or -1 with the first problem and
// nothing visited.
int32_t pt_toml_read(const char *text, size_t length, void *context,
                     void (*visit)(void *context, const pt_toml_value *value), pt_toml_problem *problem);

#ifdef __cplusplus
}
#endif

#endif
