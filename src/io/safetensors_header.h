/* The header of one safetensors file, checked against the file. */
#ifndef KAC_IO_SAFETENSORS_HEADER_H
#define KAC_IO_SAFETENSORS_HEADER_H

#include "io/weights.h"

/* Parses f->map into f->header and a fresh array of entries (caller: kac_free) whose `file` is 0. Every tensor lies
 * inside the file, none overlaps another, together they cover it. */
kac_status kac_st_header_read(kac_weights_file *f, kac_weights_entry **entries, int *n_entries);

#endif
