/* Pictures on disk: 8-bit RGB in, PNG with text chunks out. The only user of stb. */
#ifndef KAC_IO_IMAGE_H
#define KAC_IO_IMAGE_H

#include "base/base.h"

/* Limits on what is loaded or saved. */
enum { KAC_IMAGE_MAX_SIDE = 16384, KAC_IMAGE_MAX_PIXELS = 1 << 26, KAC_PNG_MAX_TEXTS = 256 };

typedef struct kac_image {
    uint8_t *rgb; /* [height, width, 3], top row first */
    int width, height;
} kac_image;

/* PNG, JPEG, BMP as RGB: alpha is dropped, grey is repeated, 16 bits are cut to 8 (as Pillow's convert("RGB")). The size is checked
 * before anything is decoded. KAC_E_IO, KAC_E_FORMAT (not a picture of these kinds, broken), KAC_E_UNSUPPORTED (too large). */
kac_status kac_image_load(kac_image *out, const char *path);
/* Only the size, as decode would check it. */
kac_status kac_image_probe(int *width, int *height, const void *data, size_t n_bytes, const char *name);
kac_status kac_image_decode(kac_image *out, const void *data, size_t n_bytes,
                            const char *name); /* name: for messages */
void kac_image_free(kac_image *image);

typedef struct kac_png_text {
    char *key;   /* 1 … 79 printable ASCII characters */
    char *value; /* UTF-8 */
} kac_png_text;

/* Text chunks of a PNG in their order: tEXt and uncompressed iTXt (compressed ones are passed over); both as UTF-8. */
typedef struct kac_png_texts {
    kac_png_text *items;
    int n;
} kac_png_texts;

/* Writes a PNG (atomic as kac_file_write). Each text becomes a tEXt chunk when its characters allow it (Latin-1), otherwise iTXt, the
 * rule of Pillow and so of the programs that read "parameters". KAC_E_USAGE for a bad key or a value that is not UTF-8; KAC_E_IO. */
kac_status kac_png_save(const char *path, const uint8_t *rgb, int width, int height, const kac_png_text *texts,
                        int n_texts);

/* KAC_E_FORMAT: not a PNG, cut off, a text chunk with a wrong checksum or a broken text. On failure *out is empty. */
kac_status kac_png_texts_read(kac_png_texts *out, const char *path);
kac_status kac_png_texts_parse(kac_png_texts *out, const void *data, size_t n_bytes, const char *name);
void kac_png_texts_free(kac_png_texts *texts);
const char *kac_png_texts_get(const kac_png_texts *texts, const char *key); /* the first; NULL: none */

/* Size of the picture as the JPEG that Pillow's save(quality=…) writes: baseline, standard tables, chroma halved. quality 1 … 100.
 * Nothing is kept. Any thread. KAC_E_SHAPE, KAC_E_USAGE. */
kac_status kac_jpeg_size(size_t *n_bytes, const uint8_t *rgb, int width, int height, int quality);

#endif
