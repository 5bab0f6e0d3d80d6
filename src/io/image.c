#include "io/image.h"
#include "io/jpeg.h"
#include "io/png.h"
#include <limits.h>
#include <string.h>
#include <zlib.h>

/* What stb gives back to its encoder must come from STBIW_MALLOC. */
static unsigned char *compress_rows(unsigned char *data, int n_data, int *n_out, int quality) {
    uLongf n = compressBound((uLong)n_data);
    unsigned char *out = kac_alloc(n);
    if (out == NULL) return NULL;
    if (n > INT_MAX || compress2(out, &n, data, (uLong)n_data, quality) != Z_OK) {
        kac_free(out);
        return NULL;
    }
    *n_out = (int)n;
    return out;
}

/* A small file can ask for any amount: 16-bit RGBA of the largest picture is the most that is needed. */
enum { MAX_DECODER_BYTES = KAC_IMAGE_MAX_PIXELS * 8 + (1 << 20) };

static void *decoder_alloc(size_t n) {
    return n > MAX_DECODER_BYTES ? NULL : kac_alloc(n);
}

static void *decoder_realloc(void *p, size_t n) {
    return n > MAX_DECODER_BYTES ? NULL : kac_realloc(p, n);
}

/* stb declares what the formats left out would define; gcc says so at the end of the file. */
#pragma GCC diagnostic ignored "-Wunused-function"
#define STB_IMAGE_IMPLEMENTATION
#define STB_IMAGE_STATIC
#define STBI_NO_STDIO
#define STBI_ONLY_PNG
#define STBI_ONLY_BMP
#define STBI_MALLOC(n) decoder_alloc(n)
#define STBI_REALLOC(p, n) decoder_realloc(p, n)
#define STBI_FREE(p) kac_free(p)
#include <stb_image.h>

#define STB_IMAGE_WRITE_IMPLEMENTATION
#define STB_IMAGE_WRITE_STATIC
#define STBI_WRITE_NO_STDIO
#define STBIW_MALLOC(n) kac_alloc(n)
#define STBIW_REALLOC(p, n) kac_realloc(p, n)
#define STBIW_FREE(p) kac_free(p)
#define STBIW_ZLIB_COMPRESS compress_rows
#include <stb_image_write.h>

enum { MAX_FILE_BYTES = 512 << 20 };

static kac_status check_size(int64_t width, int64_t height, const char *name) {
    if (width < 1 || height < 1)
        return KAC_FAIL(KAC_E_FORMAT, "%s: a picture of %lldx%lld", name, (long long)width, (long long)height);
    if (width > KAC_IMAGE_MAX_SIDE || height > KAC_IMAGE_MAX_SIDE || width * height > KAC_IMAGE_MAX_PIXELS)
        return KAC_FAIL(KAC_E_UNSUPPORTED,
                        "%s: %lldx%lld is larger than the %d pixels a side and %d in all that are allowed", name,
                        (long long)width, (long long)height, (int)KAC_IMAGE_MAX_SIDE, (int)KAC_IMAGE_MAX_PIXELS);
    return KAC_OK;
}

kac_status kac_image_probe(int *width, int *height, const void *data, size_t n_bytes, const char *name) {
    const uint8_t *header = data;
    int channels;
    if (n_bytes > MAX_FILE_BYTES) return KAC_FAIL(KAC_E_UNSUPPORTED, "%s: too many bytes for a picture", name);
    if (kac_jpeg_is(data, n_bytes)) {
        KAC_TRY(kac_jpeg_probe(width, height, data, n_bytes, name));
        return check_size(*width, *height, name);
    }
    if (n_bytes >= 24 && memcmp(header, "\x89PNG\r\n\x1a\n", 8) == 0) /* of a PNG too large for it stb gives no size */
        KAC_TRY(check_size(kac_png_uint32(header + 16), kac_png_uint32(header + 20), name));
    if (!stbi_info_from_memory(data, (int)n_bytes, width, height, &channels))
        return KAC_FAIL(KAC_E_FORMAT, "%s is not a PNG, JPEG or BMP picture that can be read", name);
    return check_size(*width, *height, name);
}

static kac_status decode_by_stb(uint8_t **rgb, const void *data, size_t n_bytes, const char *name) {
    int width, height, channels;
    *rgb = stbi_load_from_memory(data, (int)n_bytes, &width, &height, &channels, 3);
    if (*rgb != NULL) return KAC_OK;
    const char *reason = stbi_failure_reason();
    const bool memory = reason != NULL && strcmp(reason, "outofmem") == 0;
    return KAC_FAIL(memory ? KAC_E_MEMORY : KAC_E_FORMAT, "%s cannot be decoded: %s", name,
                    reason == NULL ? "broken" : reason);
}

kac_status kac_image_decode(kac_image *out, const void *data, size_t n_bytes, const char *name) {
    int width, height;
    *out = (kac_image){0};
    KAC_TRY(kac_image_probe(&width, &height, data, n_bytes, name));
    uint8_t *rgb;
    if (kac_jpeg_is(data, n_bytes)) {
        rgb = kac_alloc((size_t)width * (size_t)height * 3);
        if (rgb == NULL) return KAC_E_MEMORY;
        const kac_status status = kac_jpeg_decode(rgb, data, n_bytes, name);
        if (status != KAC_OK) {
            kac_free(rgb);
            return status;
        }
    } else
        KAC_TRY(decode_by_stb(&rgb, data, n_bytes, name));
    *out = (kac_image){.rgb = rgb, .width = width, .height = height};
    return KAC_OK;
}

kac_status kac_image_load(kac_image *out, const char *path) {
    char *data;
    size_t n;
    *out = (kac_image){0};
    KAC_TRY(kac_file_read(&data, &n, path, MAX_FILE_BYTES));
    const kac_status status = kac_image_decode(out, data, n, path);
    kac_free(data);
    return status;
}

void kac_image_free(kac_image *image) {
    kac_free(image->rgb);
    *image = (kac_image){0};
}

kac_status kac_png_encode(uint8_t **out, size_t *n_bytes, const uint8_t *rgb, int width, int height, const char *name) {
    int n = 0;
    KAC_TRY(check_size(width, height, name));
    *out = stbi_write_png_to_mem(rgb, width * 3, width, height, 3, &n);
    if (*out == NULL) return KAC_FAIL(KAC_E_MEMORY, "%s: out of memory for a PNG of %dx%d", name, width, height);
    *n_bytes = (size_t)n;
    return KAC_OK;
}
