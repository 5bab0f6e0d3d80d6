/* The header of one safetensors file, checked against the file. */
#ifndef KAC_IO_SAFETENSORS_HEADER_H
#define KAC_IO_SAFETENSORS_HEADER_H

#include "io/safetensors.h"

/* Parses f->map into f->header and a fresh array of entries (caller: kac_free) whose `file` is 0. Every tensor lies
 * inside the file, none overlaps another, together they cover it. */
kac_status kac_st_header_read(kac_st_file *f, kac_st_entry **entries, int *n_entries);

/* A name from a file as one printable line of at most 95 bytes; returns the buffer. */
const char *kac_st_shown(const char *name, char buffer[96]);

#endif
