// See pt_toml.h. For toml++ 3.3 and later, which is all header.
#include "pt_toml.h"

#include <algorithm>
#include <cstring>
#include <string_view>

#define TOML_HEADER_ONLY 1
#define TOML_EXCEPTIONS 0
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

int32_t pt_toml_read(const char *text, size_t length, void *context,
                     void (*visit)(void *context, const pt_toml_value *value), pt_toml_problem *problem) {
    const toml::parse_result result = toml::parse(std::string_view(text, length));
    if (!result) {
        const toml::parse_error &error = result.error();
        const std::string_view why = error.description();
        const size_t count = std::min(why.size(), sizeof problem->text - 1);
        std::memcpy(problem->text, why.data(), count);
        problem->text[count] = 0;
        problem->line = error.source().begin.line;
        problem->column = error.source().begin.column;
        return -1;
    }
    for (const auto &[key, node] : result.table()) {
        pt_toml_value value{};
        value.key = key.str().data();
        value.key_length = key.str().size();
        value.kind = PT_TOML_OTHER;
        show(node, value, context, visit);
    }
    return 0;
}
