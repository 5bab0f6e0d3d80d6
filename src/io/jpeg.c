#include "io/jpeg.h"
#include <setjmp.h>
#include <stdio.h>

#include <jerror.h>
#include <jpeglib.h>

/* Real progressive files have about ten passes over the picture; hostile ones make thousands of a few bytes each. */
enum { MAX_SCANS = 100 };

/* libjpeg reports errors by a jump back to who called it. */
typedef struct handler {
    struct jpeg_error_mgr errors; /* first: libjpeg knows only this part */
    jmp_buf back;
    const char *name;
    kac_status status;
} handler;

static void fail(j_common_ptr codec) {
    handler *h = (handler *)codec->err;
    char text[JMSG_LENGTH_MAX];
    codec->err->format_message(codec, text);
    h->status = KAC_FAIL(codec->err->msg_code == JERR_OUT_OF_MEMORY ? KAC_E_MEMORY : KAC_E_FORMAT, "%s: JPEG: %s",
                         h->name, text);
    longjmp(h->back, 1);
}

/* Warnings are harmless, but for the one of a file that ends too early: libjpeg would make up the rest. */
static void warn(j_common_ptr codec, int level) {
    if (level < 0 && codec->err->msg_code == JWRN_JPEG_EOF) fail(codec);
}

static void be_silent(j_common_ptr codec) {
    (void)codec;
}

static void check_scans(j_common_ptr codec) {
    handler *h = (handler *)codec->err;
    if (!codec->is_decompressor || ((j_decompress_ptr)codec)->input_scan_number <= MAX_SCANS) return;
    h->status = KAC_FAIL(KAC_E_FORMAT, "%s: JPEG of more than %d passes", h->name, (int)MAX_SCANS);
    longjmp(h->back, 1);
}

static void handler_init(handler *h, const char *name) {
    *h = (handler){.name = name, .status = KAC_OK};
    jpeg_std_error(&h->errors);
    h->errors.error_exit = fail;
    h->errors.emit_message = warn;
    h->errors.output_message = be_silent;
}

bool kac_jpeg_is(const void *data, size_t n_bytes) {
    const uint8_t *s = data;
    return n_bytes >= 3 && s[0] == 0xFF && s[1] == 0xD8 && s[2] == 0xFF;
}

/* The functions with setjmp own no variable that could be lost by the jump; false: h->status says why. */
static bool read_header(struct jpeg_decompress_struct *codec, handler *h, const void *data, size_t n_bytes) {
    codec->err = &h->errors;
    if (setjmp(h->back) != 0) return false;
    jpeg_create_decompress(codec);
    jpeg_mem_src(codec, data, (unsigned long)n_bytes);
    jpeg_read_header(codec, TRUE);
    return true;
}

static bool read_rows(struct jpeg_decompress_struct *codec, handler *h, uint8_t *rgb) {
    if (setjmp(h->back) != 0) return false;
    codec->out_color_space = JCS_RGB;
    jpeg_start_decompress(codec);
    while (codec->output_scanline < codec->output_height) {
        JSAMPROW row = rgb + (size_t)codec->output_scanline * codec->output_width * 3;
        jpeg_read_scanlines(codec, &row, 1);
    }
    jpeg_finish_decompress(codec);
    return true;
}

kac_status kac_jpeg_probe(int *width, int *height, const void *data, size_t n_bytes, const char *name) {
    struct jpeg_decompress_struct codec = {0};
    handler h;
    handler_init(&h, name);
    if (read_header(&codec, &h, data, n_bytes)) {
        *width = (int)codec.image_width;
        *height = (int)codec.image_height;
        if (codec.jpeg_color_space == JCS_CMYK || codec.jpeg_color_space == JCS_YCCK)
            h.status = KAC_FAIL(KAC_E_UNSUPPORTED, "%s is a CMYK JPEG: convert it to RGB", name);
    }
    jpeg_destroy_decompress(&codec);
    return h.status;
}

kac_status kac_jpeg_decode(uint8_t *rgb, const void *data, size_t n_bytes, const char *name) {
    struct jpeg_decompress_struct codec = {0};
    struct jpeg_progress_mgr progress = {.progress_monitor = check_scans};
    handler h;
    handler_init(&h, name);
    if (read_header(&codec, &h, data, n_bytes)) {
        codec.progress = &progress;
        read_rows(&codec, &h, rgb);
    }
    jpeg_destroy_decompress(&codec);
    return h.status;
}

/* ---- how large a picture would be: the bytes go nowhere ---- */

typedef struct counter {
    struct jpeg_destination_mgr destination; /* first */
    size_t n;
    JOCTET buffer[16384];
} counter;

static void start_counting(j_compress_ptr codec) {
    counter *c = (counter *)codec->dest;
    c->destination.next_output_byte = c->buffer;
    c->destination.free_in_buffer = sizeof(c->buffer);
}

static boolean count_full(j_compress_ptr codec) {
    ((counter *)codec->dest)->n += sizeof(((counter *)codec->dest)->buffer);
    start_counting(codec);
    return TRUE;
}

static void count_rest(j_compress_ptr codec) {
    counter *c = (counter *)codec->dest;
    c->n += sizeof(c->buffer) - c->destination.free_in_buffer;
}

static bool write_rows(struct jpeg_compress_struct *codec, handler *h, counter *c, const uint8_t *rgb, int quality) {
    codec->err = &h->errors;
    if (setjmp(h->back) != 0) return false;
    const JDIMENSION width = codec->image_width, height = codec->image_height;
    jpeg_create_compress(codec);
    codec->dest = &c->destination;
    codec->image_width = width;
    codec->image_height = height;
    codec->input_components = 3;
    codec->in_color_space = JCS_RGB;
    jpeg_set_defaults(codec);
    jpeg_set_quality(codec, quality, TRUE);
    jpeg_start_compress(codec, TRUE);
    while (codec->next_scanline < height) {
        JSAMPROW row = (JSAMPROW)(uintptr_t)(rgb + (size_t)codec->next_scanline * width * 3);
        jpeg_write_scanlines(codec, &row, 1);
    }
    jpeg_finish_compress(codec);
    return true;
}

kac_status kac_jpeg_size(size_t *n_bytes, const uint8_t *rgb, int width, int height, int quality) {
    if (width < 1 || height < 1 || width > KAC_IMAGE_MAX_SIDE || height > KAC_IMAGE_MAX_SIDE)
        return KAC_FAIL(KAC_E_SHAPE, "a picture of %dx%d has no JPEG", width, height);
    if (quality < 1 || quality > 100) return KAC_FAIL(KAC_E_USAGE, "a JPEG quality is 1 to 100, not %d", quality);
    struct jpeg_compress_struct codec = {.image_width = (JDIMENSION)width, .image_height = (JDIMENSION)height};
    counter c;
    c.n = 0;
    c.destination = (struct jpeg_destination_mgr){
        .init_destination = start_counting, .empty_output_buffer = count_full, .term_destination = count_rest};
    handler h;
    handler_init(&h, "picture");
    write_rows(&codec, &h, &c, rgb, quality);
    jpeg_destroy_compress(&codec);
    *n_bytes = c.n;
    return h.status;
}
