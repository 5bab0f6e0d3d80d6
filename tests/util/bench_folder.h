/* A bench folder made by a test: lines of results, then bench.json; in the test's temporary folder. */
#ifndef KAC_TESTS_UTIL_BENCH_FOLDER_H
#define KAC_TESTS_UTIL_BENCH_FOLDER_H

#include "report/bench_data.h"

/* Adds one line to the results; a line break follows. */
void bench_line(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Adds text as it is. */
void bench_text(const char *text);
/* Writes both files; the results begin anew. */
void bench_write(const char *json);
/* The same, and reads the folder. */
kac_status bench_load(kac_bench_data *d, const char *json);

#endif
