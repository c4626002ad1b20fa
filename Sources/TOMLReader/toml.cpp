// See pt_toml.h. For toml++ 3.3 and later, which is all header.
#include "pt_toml.h"

#include <algorithm>
#include <cstring>
#include <exception>
#include <string_view>

// toml++ 3.3 and 3.4 take for granted that a key follows `[` and `[[`: for `[.a]` an assertion fails, which without
// assertions is undefined. Here it is an error as any other. No longer needed when `[.a]` gives a parse_error by itself.
namespace {
struct Unexpected {};
}
#undef NDEBUG
#define TOML_ASSERT(expression) \
    do { \
        if (!(expression)) throw Unexpected(); \
    } while (false)

#define TOML_HEADER_ONLY 1
#define TOML_EXCEPTIONS 1
#define TOML_ENABLE_FORMATTERS 0
#include <toml++/toml.h>

static void show(const toml::node &node, pt_toml_value value, void *context,
                 void (*visit)(void *, const pt_toml_value *)) {
    if (const auto *text = node.as_string()) {
        value.kind = PT_TOML_TEXT;
        value.text = text->get().data();
        value.text_length = text->get().size();
    } else if (const auto *flag = node.as_boolean()) {
        value.kind = PT_TOML_FLAG;
        value.number = flag->get() ? 1 : 0;
    } else if (const auto *number = node.as_integer()) {
        value.kind = PT_TOML_NUMBER;
        value.number = number->get();
    } else if (node.is_array() && !value.is_element) {
        value.kind = PT_TOML_LIST;
    }
    visit(context, &value);
    if (value.kind != PT_TOML_LIST) return;
    value.kind = PT_TOML_OTHER;
    value.is_element = 1;
    for (const toml::node &element : *node.as_array()) show(element, value, context, visit);
}

static bool is_unexpected(std::string_view text) {
    try {
        static_cast<void>(toml::parse(text));
    } catch (const Unexpected &) {
        return true;
    } catch (const toml::parse_error &) {
    }
    return false;
}

// The length of the shortest beginning of `text` with what was not expected: a reader goes from left to right.
static size_t unexpected_end(std::string_view text) {
    size_t good = 0, bad = text.size();
    while (bad - good > 1) {
        const size_t middle = good + (bad - good) / 2;
        (is_unexpected(text.substr(0, middle)) ? bad : good) = middle;
    }
    return bad;
}

static void tell(pt_toml_problem *problem, std::string_view why, uint32_t line, uint32_t column) {
    const size_t count = std::min(why.size(), sizeof problem->text - 1);
    std::memcpy(problem->text, why.data(), count);
    problem->text[count] = 0;
    problem->line = line;
    problem->column = column;
}

int32_t pt_toml_read(const char *text, size_t length, void *context,
                     void (*visit)(void *context, const pt_toml_value *value), pt_toml_problem *problem) {
    const std::string_view document(text, length);
    toml::table table;
    try {
        table = toml::parse(document);
    } catch (const toml::parse_error &error) {
        tell(problem, error.description(), error.source().begin.line, error.source().begin.column);
        return -1;
    } catch (const Unexpected &) {
        const std::string_view before = document.substr(0, unexpected_end(document) - 1);
        const size_t line = std::count(before.begin(), before.end(), '\n') + 1;
        // Without a line before, npos + 1 is 0. Columns are characters: not the later bytes of one in UTF-8.
        const std::string_view begun = before.substr(before.rfind('\n') + 1);
        const size_t column = std::count_if(begun.begin(), begun.end(), [](char c) { return (c & 0xC0) != 0x80; }) + 1;
        tell(problem, "a key was expected", static_cast<uint32_t>(line), static_cast<uint32_t>(column));
        return -1;
    } catch (const std::exception &error) {
        tell(problem, error.what(), 1, 1);
        return -1;
    }
    for (const auto &[key, node] : table) {
        pt_toml_value value{};
        value.key = key.str().data();
        value.key_length = key.str().size();
        value.kind = PT_TOML_OTHER;
        show(node, value, context, visit);
    }
    return 0;
}
