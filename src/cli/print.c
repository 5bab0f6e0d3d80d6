#include "cli.h"
#include <stdio.h>
#include <stdlib.h>

/* Bytes of a character that would turn the direction of what follows on the line (U+202A…202E, U+2066…2069): 3, else 0. */
static int direction_mark(const unsigned char *s) {
    if (s[0] != 0xe2) return 0;
    return (s[1] == 0x80 && s[2] >= 0xaa && s[2] <= 0xae) || (s[1] == 0x81 && s[2] >= 0xa6 && s[2] <= 0xa9) ? 3 : 0;
}

static void put_clean(FILE *f, const char *text) {
    for (const unsigned char *s = (const unsigned char *)text; *s != '\0';) {
        const int skip = direction_mark(s);
        fputc(skip > 0 || *s < 32 || *s == 127 ? '?' : *s, f);
        s += skip > 0 ? skip : 1;
    }
}

void kac_cli_complain(const char *command, const char *message) {
    fprintf(stderr, command == NULL ? "kac: " : "kac %s: ", command);
    put_clean(stderr, message[0] == '\0' ? "failed" : message);
    fputc('\n', stderr);
}

void kac_cli_print_text(const char *s) {
    put_clean(stdout, s);
}

kac_status kac_cli_print_json(cJSON *document) {
    char *text = document == NULL ? NULL : cJSON_Print(document);
    cJSON_Delete(document);
    if (text == NULL) return KAC_FAIL(KAC_E_MEMORY, "not enough memory for the JSON document");
    const int n = printf("%s\n", text);
    cJSON_free(text);
    return n < 0 || fflush(stdout) != 0 ? KAC_FAIL(KAC_E_IO, "cannot write to standard output") : KAC_OK;
}

const char *kac_cli_bytes(double n, char buffer[32]) {
    const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB"};
    int u = 0;
    while (n >= 1024 && u < 4) n /= 1024, u++;
    snprintf(buffer, 32, u == 0 || n >= 100 ? "%.0f %s" : "%.1f %s", n, units[u]);
    return buffer;
}
