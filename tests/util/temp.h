/* A fresh folder for what a test writes. */
#ifndef KAC_TESTS_TEMP_H
#define KAC_TESTS_TEMP_H

#include <stdbool.h>
#include <stddef.h>

/* Makes the folder ($TMPDIR or /tmp) on the first call and removes it with all files when the program ends. */
const char *temp_dir(void);

/* "<temp_dir>/name" in one of 16 buffers that are used in turn. */
const char *temp_path(const char *name);

/* Writes a whole file there and returns its path; ends the program when that fails. */
const char *temp_write(const char *name, const void *data, size_t n);

/* Number of entries in a folder; -1 when it cannot be read. */
int temp_count(const char *dir);

#endif
