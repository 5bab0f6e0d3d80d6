/* One document, two faces: --json prints it as it is, otherwise it becomes lines and tables for people. And how runs end. */
#include "show.h"
#include "report/report.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

static bool is_bytes(const char *key) {
    const size_t n = strlen(key);
    return n >= 5 && strcmp(key + n - 5, "bytes") == 0;
}

/* A value as one line of text. */
static void value_text(kac_text *t, const char *key, const cJSON *v) {
    char buffer[32];
    if (cJSON_IsString(v))
        kac_text_add(t, "%s", v->valuestring);
    else if (cJSON_IsBool(v))
        kac_text_add(t, cJSON_IsTrue(v) ? "yes" : "no");
    else if (cJSON_IsNumber(v) && key != NULL && is_bytes(key))
        kac_text_add(t, "%s", kac_cli_bytes(v->valuedouble, buffer));
    else if (cJSON_IsNumber(v))
        kac_text_add(t, fabs(v->valuedouble) < 1e15 && v->valuedouble == floor(v->valuedouble) ? "%.0f" : "%.6g",
                     v->valuedouble);
    else if (cJSON_IsArray(v)) {
        const bool shape = v->child == NULL || cJSON_IsNumber(v->child);
        if (shape) kac_text_add(t, "[");
        for (const cJSON *e = v->child; e != NULL; e = e->next) {
            value_text(t, NULL, e);
            if (e->next != NULL) kac_text_add(t, ", ");
        }
        if (shape) kac_text_add(t, "]");
    } else
        kac_text_add(t, "-");
    if (t->s == NULL) kac_text_add_bytes(t, "", 0);
}

static bool is_table(const cJSON *v) {
    return cJSON_IsArray(v) && cJSON_IsObject(v->child);
}

/* Bytes of UTF-8 that begin a character: near enough to columns for aligning. */
static int columns(const char *s) {
    int n = 0;
    for (; *s != '\0'; s++) n += ((unsigned char)*s & 0xc0) != 0x80;
    return n;
}

static void print_table(const cJSON *rows, int indent) {
    enum { MAX_COLUMNS = 12 };
    int width[MAX_COLUMNS] = {0};
    for (int pass = 0; pass < 2; pass++)
        for (const cJSON *row = rows->child; row != NULL; row = row->next) {
            int i = 0;
            if (pass == 1) printf("%*s", indent, "");
            for (const cJSON *v = row->child; v != NULL && i < MAX_COLUMNS; v = v->next, i++) {
                kac_text t = {0};
                value_text(&t, v->string, v);
                const int n = t.s == NULL ? 0 : columns(t.s);
                if (pass == 0) {
                    width[i] = KAC_MAX(width[i], KAC_MIN(n, 60));
                } else {
                    const bool number = cJSON_IsNumber(v);
                    const int pad = KAC_MAX(0, width[i] - n);
                    if (number) printf("%*s", pad, "");
                    kac_cli_print_text(t.s == NULL ? "" : t.s);
                    if (cJSON_IsNumber(v) && v->string != NULL && !is_bytes(v->string) && strlen(v->string) < 24)
                        printf(" %s", v->string);
                    if (v->next != NULL) printf("%*s", (number ? 0 : pad) + 2, "");
                }
                kac_text_free(&t);
            }
            if (pass == 1) printf("\n");
        }
}

/* Text of several lines stays so, each below the first. */
static void print_lines(char *text, int indent) {
    char *rest = text, *line;
    for (int i = 0; (line = strsep(&rest, "\n")) != NULL; i++) {
        if (i > 0) printf("%*s", indent, "");
        kac_cli_print_text(line);
        printf("\n");
    }
    if (text == NULL) printf("\n");
}

static void print_object(const cJSON *object, int indent) {
    int width = 0;
    for (const cJSON *v = object->child; v != NULL; v = v->next)
        if (!is_table(v) && !cJSON_IsObject(v)) width = KAC_MAX(width, KAC_MIN(columns(v->string), 28));
    for (const cJSON *v = object->child; v != NULL; v = v->next) {
        printf("%*s", indent, "");
        kac_cli_print_text(v->string);
        if (is_table(v)) {
            printf("\n");
            print_table(v, indent + 2);
        } else if (cJSON_IsObject(v)) {
            printf("\n");
            print_object(v, indent + 2);
        } else {
            kac_text t = {0};
            value_text(&t, v->string, v);
            printf("%*s", KAC_MAX(0, width - columns(v->string)) + 2, "");
            print_lines(t.s, indent + KAC_MAX(width, columns(v->string)) + 2);
            kac_text_free(&t);
        }
    }
}

kac_status kac_cli_show(const kac_cli *cli, cJSON *document) {
    if (cli->json || document == NULL) return kac_cli_print_json(document);
    print_object(document, 0);
    cJSON_Delete(document);
    return KAC_OK;
}

kac_status kac_cli_end_run(char **page, const kac_cli *cli, const char *folder, kac_status status, const char *why,
                           const char *what) {
    char *error = status == KAC_OK ? NULL : kac_strdup(kac_error());
    *page = kac_path_join(folder, "index.html");
    const kac_status page_status = kac_report_write(folder, NULL);
    if (status == KAC_E_CANCELLED)
        status = KAC_FAIL(status, "%s; 'kac %s --resume -o %s' goes on to the same %s",
                          why != NULL     ? why
                          : error != NULL ? error
                                          : "stopped",
                          cli->command->name, folder, what);
    else if (status == KAC_OK)
        status = *page == NULL ? KAC_E_MEMORY : page_status;
    else if (error != NULL)
        status = KAC_FAIL(status, "%s", error);
    kac_free(error);
    return status;
}
