/* What the two files on PNG share. */
#ifndef KAC_IO_PNG_H
#define KAC_IO_PNG_H

#include "io/image.h"

/* A PNG without text in fresh memory; caller: kac_free. */
kac_status kac_png_encode(uint8_t **out, size_t *n_bytes, const uint8_t *rgb, int width, int height, const char *name);

/* Four bytes, the highest first. */
uint32_t kac_png_uint32(const uint8_t *p);

#endif
