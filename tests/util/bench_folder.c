#include "bench_folder.h"
#include "temp.h"
#include <stdio.h>
#include <string.h>

static kac_text lines;

void bench_line(const char *format, ...) {
    char line[4096];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    kac_text_add(&lines, "%s\n", line);
}

void bench_text(const char *text) {
    kac_text_add(&lines, "%s", text);
}

void bench_write(const char *json) {
    temp_write("bench.json", json, strlen(json));
    temp_write("results.jsonl", lines.s == NULL ? "" : lines.s, lines.n);
    kac_text_free(&lines);
}

kac_status bench_load(kac_bench_data *d, const char *json) {
    bench_write(json);
    return kac_bench_data_load(d, temp_dir());
}
