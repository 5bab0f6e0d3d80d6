#include "check.h"
#include "io/image.h"
#include "util/temp.h"
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>

#define DATA "tests/io/data/images/"

/* Pillow's convert("RGB") of each file lies beside it; JPEG decoders differ in the last bits. */
static void test_load(void) {
    static const struct {
        const char *name;
        int width, height, tolerance;
    } rows[] = {{"rgb.png", 7, 5, 0},      {"rgba.png", 7, 5, 0},     {"grey.png", 7, 5, 0},
                {"la.png", 7, 5, 0},       {"palette.png", 7, 5, 0},  {"one_bit.png", 7, 5, 0},
                {"rgb.bmp", 7, 5, 0},      {"smooth.jpg", 32, 24, 1}, {"progressive.jpg", 32, 24, 1},
                {"halved.jpg", 31, 23, 1}, {"grey.jpg", 32, 24, 1}};
    for (int i = 0; i < KAC_COUNT_OF(rows); i++) {
        char path[128], want_path[160], *want;
        size_t n;
        kac_image image;
        snprintf(path, sizeof(path), DATA "%s", rows[i].name);
        snprintf(want_path, sizeof(want_path), "%s.rgb", path);
        if (!CHECK_OK(kac_image_load(&image, path)) || !CHECK_OK(kac_file_read(&want, &n, want_path, 1 << 20)))
            continue;
        CHECK(image.width == rows[i].width && image.height == rows[i].height &&
              n == (size_t)image.width * (size_t)image.height * 3);
        int worst = 0;
        for (size_t k = 0; k < n; k++) worst = KAC_MAX(worst, abs(image.rgb[k] - (uint8_t)want[k]));
        if (!CHECK(worst <= rows[i].tolerance)) printf("  %s: %d\n", path, worst);
        kac_image_free(&image);
        kac_free(want);
    }
}

static void test_load_fails(void) {
    kac_image image;
    char *data;
    size_t n;
    CHECK_FAILS(kac_image_load(&image, temp_path("none.png")), KAC_E_IO, "none.png");
    CHECK_FAILS(kac_image_load(&image, temp_write("empty.png", "", 0)), KAC_E_FORMAT, "empty.png");
    CHECK_FAILS(kac_image_load(&image, temp_write("text.png", "hello", 5)), KAC_E_FORMAT, "text.png");
    CHECK_OK(kac_file_read(&data, &n, DATA "rgb.png", 1 << 20));
    for (size_t cut = 0; cut < n - 16; cut++) { /* a missing end alone does no harm */
        CHECK_FAILS(kac_image_decode(&image, data, cut, "cut"), KAC_E_FORMAT, "cut");
        CHECK(image.rgb == NULL);
    }
    memcpy(data + 16, "\0\1\x86\xA0\0\0\0\5", 8); /* 100000 wide */
    CHECK_FAILS(kac_image_decode(&image, data, n, "wide"), KAC_E_UNSUPPORTED, "larger than");
    memcpy(data + 16, "\0\0\x40\0\0\0\x40\0", 8); /* 16384 × 16384 */
    CHECK_FAILS(kac_image_decode(&image, data, n, "large"), KAC_E_UNSUPPORTED, "16384x16384 is larger");
    memcpy(data + 16, "\0\0\0\0\0\0\0\5", 8);
    CHECK_FAILS(kac_image_decode(&image, data, n, "zero"), KAC_E_FORMAT, "zero");
    kac_free(data);
    CHECK_FAILS(kac_image_load(&image, DATA "cmyk.jpg"), KAC_E_UNSUPPORTED, "CMYK");
    CHECK_OK(kac_file_read(&data, &n, DATA "smooth.jpg", 1 << 20));
    for (size_t cut = 3; cut < n - 2; cut++)
        CHECK_FAILS(kac_image_decode(&image, data, cut, "cut"), KAC_E_FORMAT, "cut");
    kac_free(data);
}

static uint8_t *make_rgb(int width, int height) {
    uint8_t *rgb = calloc((size_t)width * (size_t)height, 3);
    uint32_t state = 1;
    for (int i = 0; i < width * height * 3; i++) rgb[i] = (uint8_t)((state = state * 1664525 + 1013904223) >> 24);
    return rgb;
}

static void test_save(void) {
    uint8_t *rgb = make_rgb(33, 17);
    char parameters[] = "a red circle, caf\xC3\xA9\nSteps: 25, Seed: 42", json[] = "{\"prompt\":\"\xE6\x97\xA5\"}",
         empty[] = "";
    char key_a[] = "parameters", key_b[] = "kac", key_c[] = "Empty";
    const kac_png_text texts[] = {{key_a, parameters}, {key_b, json}, {key_c, empty}};
    const char *path = temp_path("saved.png");
    CHECK_OK(kac_png_save(path, rgb, 33, 17, texts, 3));
    kac_image image;
    if (CHECK_OK(kac_image_load(&image, path))) {
        CHECK(image.width == 33 && image.height == 17 && memcmp(image.rgb, rgb, 33 * 17 * 3) == 0);
        kac_image_free(&image);
    }
    kac_png_texts read;
    if (CHECK_OK(kac_png_texts_read(&read, path)) && CHECK(read.n == 3)) {
        CHECK_TEXT(read.items[0].key, "parameters");
        CHECK_TEXT(read.items[0].value, parameters);
        CHECK_TEXT(kac_png_texts_get(&read, "kac"), json);
        CHECK_TEXT(kac_png_texts_get(&read, "Empty"), "");
        CHECK(kac_png_texts_get(&read, "Kac") == NULL);
    }
    kac_png_texts_free(&read);
    char *data; /* é fits Latin-1, the ideograph does not */
    size_t n;
    CHECK_OK(kac_file_read(&data, &n, path, 1 << 20));
    CHECK(memmem(data, n, "tEXtparameters", 14) != NULL && memmem(data, n, "caf\xE9\n", 5) != NULL);
    CHECK(memmem(data, n, "iTXtkac\0\0\0\0\0{", 13) != NULL);
    kac_free(data);

    char bad_key[] = "k\xC3\xA9y", no_key[] = "", bad_value[] = "\xff";
    const kac_png_text bad[] = {{bad_key, empty}, {no_key, empty}, {key_a, bad_value}};
    for (int i = 0; i < 3; i++)
        CHECK_FAILS(kac_png_save(temp_path("bad.png"), rgb, 33, 17, &bad[i], 1), KAC_E_USAGE, "bad.png");
    CHECK_FAILS(kac_png_save(temp_path("bad.png"), rgb, 0, 17, NULL, 0), KAC_E_FORMAT, "0x17");
    CHECK_FAILS(kac_png_save(temp_path("none/bad.png"), rgb, 33, 17, NULL, 0), KAC_E_IO, "none/bad.png");
    CHECK(!kac_file_exists(temp_path("bad.png")));
    CHECK(mkfifo(temp_path("fifo.png"), 0600) == 0);
    CHECK_FAILS(kac_png_save(temp_path("fifo.png"), rgb, 33, 17, NULL, 0), KAC_E_IO, "not a regular file");
    free(rgb);
}

/* A file that Pillow wrote. */
static void test_texts(void) {
    kac_png_texts read;
    if (CHECK_OK(kac_png_texts_read(&read, DATA "text.png")) && CHECK(read.n == 3)) {
        CHECK_TEXT(kac_png_texts_get(&read, "parameters"), "a red circle\nSteps: 25, Seed: 42");
        CHECK_TEXT(kac_png_texts_get(&read, "title"), "\xE6\x97\xA5\xE6\x9C\xAC\xE8\xAA\x9E \xE2\x9C\x93");
        CHECK_TEXT(kac_png_texts_get(&read, "latin"), "caf\xC3\xA9");
    }
    kac_png_texts_free(&read);
    char *data;
    size_t n;
    CHECK_OK(kac_file_read(&data, &n, DATA "text.png", 1 << 20));
    for (size_t cut = 0; cut < n; cut++) CHECK_FAILS(kac_png_texts_parse(&read, data, cut, "cut"), KAC_E_FORMAT, "cut");
    char *red = memmem(data, n, "a red", 5);
    red[0] ^= 1;
    CHECK_FAILS(kac_png_texts_parse(&read, data, n, "x"), KAC_E_FORMAT, "checksum");
    CHECK_FAILS(kac_png_texts_read(&read, DATA "smooth.jpg"), KAC_E_FORMAT, "not a PNG");
    kac_free(data);
}

/* A PNG of one chunk and IEND; only what the text reader looks at. */
static kac_status parse_chunk(const char *type, const char *body, size_t n) {
    uint8_t png[512] = "\x89PNG\r\n\x1a\n";
    uint8_t *p = png + 8;
    p[3] = (uint8_t)n;
    memcpy(p + 4, type, 4);
    memcpy(p + 8, body, n);
    const uint32_t crc = kac_crc32(p + 4, n + 4, 0);
    for (int i = 0; i < 4; i++) p[8 + n + (size_t)i] = (uint8_t)(crc >> (24 - 8 * i));
    memcpy(p + 12 + n, "\0\0\0\0IEND\xae\x42\x60\x82", 12);
    kac_png_texts read;
    const kac_status status = kac_png_texts_parse(&read, png, 8 + 12 + n + 12, "chunk");
    kac_png_texts_free(&read);
    return status;
}

static void test_hostile_chunks(void) {
    CHECK_OK(parse_chunk("tEXt", "key\0value", 9));
    CHECK_OK(parse_chunk("tEXt", "key\0", 4));
    CHECK_OK(parse_chunk("iTXt", "key\0\0\0\0\0value", 13));
    CHECK_OK(parse_chunk("iTXt", "key\0\0\0en\0trans\0value", 20));
    CHECK_OK(parse_chunk("iTXt", "key\0\1\0\0\0\xff\xfe", 10)); /* compressed: passed over */
    CHECK_OK(parse_chunk("zTXt", "", 0));
    CHECK_FAILS(parse_chunk("tEXt", "", 0), KAC_E_FORMAT, "broken");
    CHECK_FAILS(parse_chunk("tEXt", "key", 3), KAC_E_FORMAT, "broken");
    CHECK_FAILS(parse_chunk("tEXt", "\0value", 6), KAC_E_FORMAT, "broken");
    CHECK_FAILS(parse_chunk("tEXt", "k\ny\0value", 9), KAC_E_FORMAT, "broken");
    CHECK_FAILS(parse_chunk("tEXt", "key\0va\0ue", 9), KAC_E_FORMAT, "broken");
    CHECK_FAILS(parse_chunk("iTXt", "key\0\0", 5), KAC_E_FORMAT, "broken");
    CHECK_FAILS(parse_chunk("iTXt", "key\0\0\0", 6), KAC_E_FORMAT, "broken");
    CHECK_FAILS(parse_chunk("iTXt", "key\0\0\0\0", 7), KAC_E_FORMAT, "broken");
    CHECK_FAILS(parse_chunk("iTXt", "key\0\0\0\0\0\xff", 9), KAC_E_FORMAT, "broken");
    char long_key[82];
    memset(long_key, 'k', sizeof(long_key));
    long_key[80] = 0;
    CHECK_FAILS(parse_chunk("tEXt", long_key, 82), KAC_E_FORMAT, "broken");
    long_key[79] = 0;
    CHECK_OK(parse_chunk("tEXt", long_key, 80));
}

static void test_disk_full(void) {
    CHECK_OK(kac_dir_make(temp_path("full")));
    const char *path = temp_path("full/x.png");
    uint8_t *rgb = make_rgb(300, 300);
    CHECK_OK(kac_png_save(path, rgb, 8, 8, NULL, 0));
    struct rlimit old, limit;
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &old);
    limit = old;
    limit.rlim_cur = 100000;
    setrlimit(RLIMIT_FSIZE, &limit);
    CHECK_FAILS(kac_png_save(path, rgb, 300, 300, NULL, 0), KAC_E_IO, "x.png");
    setrlimit(RLIMIT_FSIZE, &old);
    CHECK(temp_count(temp_path("full")) == 1);
    kac_image image;
    if (CHECK_OK(kac_image_load(&image, path))) CHECK(image.width == 8);
    kac_image_free(&image);
    free(rgb);
}

static void test_jpeg_size(void) {
    uint8_t *noise = make_rgb(64, 64), *flat = calloc(64 * 64, 3);
    size_t n_noise, n_flat, n_coarse, again;
    CHECK_OK(kac_jpeg_size(&n_noise, noise, 64, 64, 95));
    CHECK_OK(kac_jpeg_size(&n_flat, flat, 64, 64, 95));
    CHECK_OK(kac_jpeg_size(&n_coarse, noise, 64, 64, 50));
    CHECK_OK(kac_jpeg_size(&again, noise, 64, 64, 95));
    CHECK(again == n_noise && n_flat < n_coarse && n_coarse < n_noise);
    CHECK_NEAR((double)n_noise, 5448, 2); /* Pillow 12 */
    CHECK_NEAR((double)n_coarse, 2321, 2);
    CHECK_FAILS(kac_jpeg_size(&again, noise, 64, 64, 0), KAC_E_USAGE, "1 to 100");
    CHECK_FAILS(kac_jpeg_size(&again, noise, 64, 0, 95), KAC_E_SHAPE, "64x0");
    free(noise);
    free(flat);
}

int main(void) {
    test_load();
    test_load_fails();
    test_save();
    test_texts();
    test_hostile_chunks();
    test_disk_full();
    test_jpeg_size();
    return check_done();
}
