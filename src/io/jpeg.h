/* JPEG through libjpeg, with the settings of Pillow, so that pictures and sizes are those of Python programs. */
#ifndef KAC_IO_JPEG_H
#define KAC_IO_JPEG_H

#include "io/image.h"

bool kac_jpeg_is(const void *data, size_t n_bytes);
/* Only the header. KAC_E_FORMAT; KAC_E_UNSUPPORTED for CMYK. */
kac_status kac_jpeg_probe(int *width, int *height, const void *data, size_t n_bytes, const char *name);
/* rgb [height, width, 3] of the size that probe gave. KAC_E_FORMAT also for a file that is cut off. */
kac_status kac_jpeg_decode(uint8_t *rgb, const void *data, size_t n_bytes, const char *name);

#endif
