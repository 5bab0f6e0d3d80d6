#include "base.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static _Thread_local char message[1024];

const char *kac_status_text(kac_status status) {
    switch (status) {
#define STATUS_TEXT(name, text)                                                                                        \
    case name:                                                                                                         \
        return text;
        KAC_STATUS_LIST(STATUS_TEXT)
#undef STATUS_TEXT
    }
    return "unknown status";
}

const char *kac_error(void) {
    return message;
}

/* Messages hold names from files and prompts: a control character would break "one line". */
static void make_one_line(char *s) {
    for (; *s != '\0'; s++)
        if ((unsigned char)*s < 0x20 || *s == 0x7f) *s = ' ';
}

kac_status kac_fail(kac_status status, const char *format, ...) {
    char text[sizeof message]; /* an argument may be the old message */
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    make_one_line(text);
    memcpy(message, text, sizeof message);
    return status;
}

kac_status kac_fail_prefix(kac_status status, const char *format, ...) {
    char prefix[256], text[sizeof message + sizeof prefix + 2];
    va_list args;
    va_start(args, format);
    vsnprintf(prefix, sizeof prefix, format, args);
    va_end(args);
    snprintf(text, sizeof text, "%s: %s", prefix, message);
    text[sizeof message - 1] = '\0';
    make_one_line(text);
    memcpy(message, text, sizeof message);
    return status;
}

_Noreturn void kac_assert_failed(const char *cond, const char *file, int line) {
    fprintf(stderr, "kac: internal error at %s:%d: %s\n", file, line, cond);
    abort();
}
