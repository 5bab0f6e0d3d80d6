#include "check.h"
#include "io/safetensors.h"
#include "io/weights.h"
#include "util/temp.h"
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define DATA "tests/io/data/safetensors"

/* The reference library's verdicts. */
static void test_reference(void) {
    kac_json expected;
    if (!CHECK_OK(kac_json_load(&expected, DATA "/expected.json"))) return;
    const cJSON *c;
    int n = 0;
    cJSON_ArrayForEach(c, cJSON_GetObjectItem(expected.root, "cases")) {
        char *path = kac_path_join(DATA, cJSON_GetObjectItem(c, "file")->valuestring);
        kac_weights s;
        n++;
        if (!cJSON_IsTrue(cJSON_GetObjectItem(c, "accept"))) {
            CHECK_FAILS(kac_weights_open(&s, path), KAC_E_FORMAT, path);
            CHECK(s.n_files == 0 && s.entries == NULL);
        } else if (CHECK_OK(kac_weights_open(&s, path))) {
            const cJSON *tensors = cJSON_GetObjectItem(c, "tensors"), *t;
            CHECK(s.n_entries == cJSON_GetArraySize(tensors));
            cJSON_ArrayForEach(t, tensors) {
                kac_tensor x;
                const cJSON *shape = t->child->next->next;
                if (!CHECK_OK(kac_weights_find(&s, t->child->valuestring, &x))) continue;
                CHECK_TEXT(kac_dtype_name(x.dtype), t->child->next->valuestring);
                CHECK(x.rank == cJSON_GetArraySize(shape));
                for (int i = 0; i < x.rank; i++) CHECK(x.shape[i] == cJSON_GetArrayItem(shape, i)->valueint);
            }
            kac_weights_close(&s);
        }
        kac_free(path);
    }
    CHECK(n == 16);
    kac_json_free(&expected);
}

/* A file of `header` and n_data bytes 0, 1, 2, … */
static const char *make_file(const char *name, const char *header, size_t n_header, size_t n_data) {
    const size_t n = 8 + n_header + n_data;
    uint8_t *all = calloc(1, n);
    for (int i = 0; i < 8; i++) all[i] = (uint8_t)((uint64_t)n_header >> (8 * i));
    memcpy(all + 8, header, n_header);
    for (size_t i = 0; i < n_data; i++) all[8 + n_header + i] = (uint8_t)i;
    const char *path = temp_write(name, all, n);
    free(all);
    return path;
}

#define T(name, dtype, shape, a, b)                                                                                    \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" #a "," #b "]}"

static const struct {
    const char *header;
    size_t n_data;
    kac_status status;
    const char *text;
} malformed[] = {
    {"", 0, KAC_E_FORMAT, "JSON"},
    {"[]", 0, KAC_E_FORMAT, "object"},
    {"{} x", 0, KAC_E_FORMAT, "after"},
    {"{\"a\":1}", 0, KAC_E_FORMAT, "\"a\": must be an object"},
    {"{\"a\":{}}", 0, KAC_E_FORMAT, "needs dtype, shape and data_offsets"},
    {"{" T("a", "F32", "[1]", 0, 4) "," T("a", "F32", "[1]", 4, 8) "}", 8, KAC_E_FORMAT, "two tensors are named \"a\""},
    {"{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, KAC_E_FORMAT, "twice"},
    {"{" T("a", "F32", "[2]", 0, 8) "," T("b", "F32", "[2]", 4, 12) "}", 12, KAC_E_FORMAT, "\"b\": overlaps"},
    {"{" T("a", "F32", "[1]", 0, 4) "," T("b", "F32", "[1]", 8, 12) "}", 12, KAC_E_FORMAT, "\"b\": unused bytes"},
    {"{" T("a", "F32", "[1]", 4, 8) "}", 8, KAC_E_FORMAT, "unused bytes"},
    {"{" T("a", "F32", "[1]", 0, 4) "}", 8, KAC_E_FORMAT, "4 bytes after the last"},
    {"{}", 8, KAC_E_FORMAT, "8 bytes after the last"},
    {"{" T("a", "F32", "[1]", 0, 4) "}", 3, KAC_E_FORMAT, "do not lie in the file"},
    {"{" T("a", "F32", "[1]", 4, 0) "}", 4, KAC_E_FORMAT, "do not lie in the file"},
    {"{" T("a", "F32", "[2]", 0, 4) "}", 4, KAC_E_FORMAT, "needs 8 bytes, its data_offsets give 4"},
    {"{" T("a", "F32", "[3037000500,3037000500]", 0, 4) "}", 4, KAC_E_FORMAT, "overflows"},
    {"{" T("a", "F64", "[4611686018427387904,4]", 0, 4) "}", 4, KAC_E_FORMAT, "whole number"},
    {"{" T("a", "F64", "[4503599627370496,4503599627370496,0]", 0, 0) "}", 0, KAC_E_FORMAT, "overflows"},
    {"{" T("a", "F32", "[-1]", 0, 4) "}", 4, KAC_E_FORMAT, "whole number"},
    {"{" T("a", "F32", "[1.5]", 0, 6) "}", 6, KAC_E_FORMAT, "whole number"},
    {"{" T("a", "F32", "[1e400]", 0, 6) "}", 6, KAC_E_FORMAT, "whole number"},
    {"{" T("a", "F32", "[\"1\"]", 0, 4) "}", 4, KAC_E_FORMAT, "whole number"},
    {"{" T("a", "F32", "1", 0, 4) "}", 4, KAC_E_FORMAT, "list of sizes"},
    {"{" T("a", "F32", "[1]", -4, 0) "}", 4, KAC_E_FORMAT, "two whole numbers"},
    {"{" T("a", "F32", "[1]", 0, 4.5) "}", 4, KAC_E_FORMAT, "two whole numbers"},
    {"{" T("a", "F32", "[1]", 0, 18446744073709551615) "}", 4, KAC_E_FORMAT, "two whole numbers"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4,8]}}", 4, KAC_E_FORMAT, "two whole numbers"},
    {"{\"a\":{\"dtype\":7,\"shape\":[1],\"data_offsets\":[0,4]}}", 4, KAC_E_FORMAT, "dtype must be a text"},
    {"{" T("a", "F33", "[1]", 0, 4) "}", 4, KAC_E_FORMAT, "unknown dtype \"F33\""},
    {"{" T("a", "F4", "[3]", 0, 1) "}", 1, KAC_E_FORMAT, "whole bytes"},
    {"{\"__metadata__\":{\"a\":1}}", 0, KAC_E_FORMAT, "must be a text"},
    {"{\"__metadata__\":[]}", 0, KAC_E_FORMAT, "must be an object"},
    {"{\"__metadata__\":{},\"__metadata__\":{}}", 0, KAC_E_FORMAT, "twice"},
    {"{\"\xff\":{}}", 0, KAC_E_FORMAT, "UTF-8"},
    {"{\"a\nb\":{}}", 0, KAC_E_FORMAT, "a?b"},
};

static void test_malformed(void) {
    for (int i = 0; i < KAC_COUNT_OF(malformed); i++) {
        const char *path =
            make_file("bad.safetensors", malformed[i].header, strlen(malformed[i].header), malformed[i].n_data);
        kac_weights s;
        if (!CHECK_FAILS(kac_weights_open(&s, path), malformed[i].status, malformed[i].text)) printf("  row %d\n", i);
        CHECK(strstr(kac_error(), "bad.safetensors") != NULL);
        CHECK(strchr(kac_error(), '\n') == NULL);
        kac_weights_close(&s);
    }
}

static void test_lengths(void) {
    kac_weights s;
    const uint64_t lengths[] = {100000001, UINT64_MAX, UINT64_MAX - 7, (uint64_t)1 << 63, 3, 100};
    for (int i = 0; i < KAC_COUNT_OF(lengths); i++) {
        char file[10];
        for (int b = 0; b < 8; b++) file[b] = (char)(lengths[i] >> (8 * b));
        memcpy(file + 8, "{}", 2);
        CHECK_FAILS(kac_weights_open(&s, temp_write("length", file, 10)), KAC_E_FORMAT,
                    lengths[i] > 1000 ? "larger than the format allows" : "does not fit");
    }
    for (size_t n = 0; n < 8; n++)
        CHECK_FAILS(kac_weights_open(&s, temp_write("short", "\0\0\0\0\0\0\0", n)), KAC_E_FORMAT, NULL);
    char deep[20000];
    memset(deep, '[', sizeof(deep));
    CHECK_FAILS(kac_weights_open(&s, make_file("deep", deep, sizeof(deep), 0)), KAC_E_FORMAT, "JSON");
    memcpy(deep, "{\"a\":", 5);
    CHECK_FAILS(kac_weights_open(&s, make_file("deep", deep, sizeof(deep), 0)), KAC_E_FORMAT, "JSON");
    /* a header that ends with the last byte of a page, cut off inside a text */
    char page[4096];
    memset(page, 'a', sizeof(page));
    memcpy(page, "{\"", 2);
    CHECK_FAILS(kac_weights_open(&s, make_file("page", page, 4096 - 8, 0)), KAC_E_FORMAT, "JSON");
    CHECK_FAILS(kac_weights_open(&s, temp_dir()), KAC_E_IO, "folder");
    CHECK_FAILS(kac_weights_open(&s, temp_path("missing")), KAC_E_IO, "missing");
    CHECK_FAILS(kac_weights_open(&s, temp_write("a.bin", "PK\3\4\0\0\0\0", 8)), KAC_E_FORMAT, "cut off");
    CHECK_FAILS(kac_weights_open(&s, temp_write("page.bin", "<!DOCTYPE html>", 15)), KAC_E_UNSUPPORTED, "web page");
    CHECK_FAILS(kac_weights_open(&s, temp_write("a.pkl", "\x80\2}q\0\0\0\0.", 9)), KAC_E_UNSUPPORTED, "pickle");
    CHECK_FAILS(kac_weights_open(&s, temp_write("a.gguf", "GGUF\3\0\0\0", 8)), KAC_E_UNSUPPORTED, "GGUF");
    CHECK_FAILS(kac_weights_open(&s, temp_write("lfs", "version https://git-lfs.github.com/spec/v1\n", 43)),
                KAC_E_UNSUPPORTED, "git lfs pull");
}

/* A header of 640 bytes: the file begins with 0x80 0x02, as pickles do. */
static void test_like_pickle(void) {
    char header[640];
    memset(header, ' ', sizeof(header));
    const char *text = "{" T("a", "U8", "[3]", 0, 3) "}";
    memcpy(header, text, strlen(text));
    kac_weights s;
    if (!CHECK_OK(kac_weights_open(&s, make_file("like_pickle", header, sizeof(header), 3)))) return;
    CHECK(s.n_entries == 1);
    kac_weights_close(&s);
}

static void test_unusual(void) {
    /* c lies at an odd address; the header makes every float misaligned too */
    const char *header =
        "{" T("b", "U8", "[3]", 0, 3) "," T("c", "F32", "[2]", 3, 11) "," T("z", "F64", "[0,7]", 11, 11) "," T(
            "e", "F8_E4M3", "[2]", 11, 13) "," T("r", "U8", "[1,1,1,1,1,1,1,1]", 13,
                                                 14) "," T("s", "U8", "[]", 14,
                                                           15) ","
                                                               "\"__metadata__\":{\"format\":\"pt\"}}";
    kac_weights s;
    kac_tensor x, again;
    if (!CHECK_OK(kac_weights_open(&s, make_file("unusual", header, strlen(header), 15)))) return;
    CHECK(s.n_entries == 6);
    if (CHECK_OK(kac_weights_find(&s, "c", &x))) {
        const uint8_t want[8] = {3, 4, 5, 6, 7, 8, 9, 10};
        CHECK((uintptr_t)x.data % 4 == 0 && memcmp(x.data, want, 8) == 0);
        CHECK_OK(kac_weights_find(&s, "c", &again));
        CHECK(again.data == x.data);
    }
    if (CHECK_OK(kac_weights_find(&s, "z", &x))) CHECK(kac_tensor_count(x) == 0 && x.rank == 2 && x.data != NULL);
    if (CHECK_OK(kac_weights_find(&s, "s", &x)))
        CHECK(x.rank == 0 && kac_tensor_count(x) == 1 && *(uint8_t *)x.data == 14);
    CHECK_FAILS(kac_weights_find(&s, "e", &x), KAC_E_UNSUPPORTED, "F8_E4M3");
    CHECK_FAILS(kac_weights_find(&s, "r", &x), KAC_E_UNSUPPORTED, "8 axes");
    CHECK_FAILS(kac_weights_find(&s, "nothing.like.it", &x), KAC_E_FORMAT, "has no tensor \"nothing.like.it\"");
    CHECK(strstr(kac_error(), "nearest") == NULL);
    CHECK_TEXT(kac_weights_metadata(&s, "format"), "pt");
    CHECK(kac_weights_metadata(&s, "other") == NULL);
    kac_weights_close(&s);
}

static void copy_file(const char *from, const char *to) {
    char *data;
    size_t n;
    if (CHECK_OK(kac_file_read(&data, &n, from, 1 << 20))) {
        CHECK_OK(kac_file_write(to, data, n));
        kac_free(data);
    }
}

static kac_status open_index(const char *text) {
    temp_write("m/model.safetensors.index.json", text, strlen(text));
    kac_weights s;
    const kac_status status = kac_weights_open_dir(&s, temp_path("m"), "model");
    kac_weights_close(&s);
    return status;
}

static void test_folder(void) {
    char dir[256]; /* temp_path's own are used in turn */
    snprintf(dir, sizeof dir, "%s", temp_path("m"));
    kac_weights s;
    kac_tensor x;
    CHECK_FAILS(kac_weights_open_dir(&s, dir, "model"), KAC_E_IO, "no such folder");
    CHECK_OK(kac_dir_make(dir));
    CHECK_FAILS(kac_weights_open_dir(&s, dir, "model"), KAC_E_IO, "there is no model.safetensors");
    temp_write("m/pytorch_model.bin", "x", 1);
    CHECK_FAILS(kac_weights_open_dir(&s, dir, "model"), KAC_E_FORMAT, "1 bytes are too few");
    copy_file("tests/io/data/torch/plain.pt", temp_path("m/pytorch_model.bin"));
    if (CHECK_OK(kac_weights_open_dir(&s, dir, "model"))) CHECK(kac_weights_entry_of(&s, "stepped") != NULL);
    kac_weights_close(&s);
    CHECK_FAILS(kac_weights_open_dir(&s, dir, "diffusion_pytorch_model"), KAC_E_IO,
                "no diffusion_pytorch_model.safetensors");
    CHECK_FAILS(kac_weights_open_variant(&s, dir, "model", "fp16"), KAC_E_IO, "no model.fp16.safetensors");
    const char *one = "{" T("one", "U8", "[1]", 0, 1) "}", *two = "{" T("two", "U8", "[2]", 0, 2) "}";
    make_file("m/model.fp16.safetensors", one, strlen(one), 1);
    if (CHECK_OK(kac_weights_open_dir(&s, dir, "model"))) {
        CHECK_FAILS(kac_weights_find(&s, "ones", &x), KAC_E_FORMAT, "the nearest is \"one\"");
        kac_weights_close(&s);
    }
    CHECK_OK(kac_weights_open_variant(&s, dir, "model", "fp16"));
    kac_weights_close(&s);
    make_file("m/model-1.safetensors", one, strlen(one), 1);
    make_file("m/model-2.safetensors", two, strlen(two), 2);
    CHECK_OK(open_index("{\"weight_map\":{\"one\":\"model-1.safetensors\",\"two\":\"model-2.safetensors\"}}"));
    CHECK_OK(kac_weights_open_dir(&s, dir, "model"));
    CHECK(s.n_files == 2 && s.n_entries == 2);
    if (CHECK_OK(kac_weights_find(&s, "two", &x))) CHECK(x.shape[0] == 2);
    kac_weights_close(&s);
    CHECK_FAILS(open_index("{\"weight_map\":{\"one\":\"../model-1.safetensors\"}}"), KAC_E_FORMAT, "same folder");
    CHECK_FAILS(open_index("{\"weight_map\":{\"one\":\"/etc/passwd\"}}"), KAC_E_FORMAT, "same folder");
    CHECK_FAILS(open_index("{\"weight_map\":{\"one\":\"..\"}}"), KAC_E_FORMAT, "same folder");
    CHECK_FAILS(open_index("{\"weight_map\":{\"one\":1}}"), KAC_E_FORMAT, "same folder");
    CHECK_FAILS(open_index("{\"weight_map\":[]}"), KAC_E_FORMAT, "weight_map must be an object");
    CHECK_FAILS(open_index("{\"weight_map\":{\"three\":\"model-1.safetensors\"}}"), KAC_E_FORMAT,
                "\"three\" is not in the shard");
    CHECK_FAILS(open_index("{\"weight_map\":{\"one\":\"model-9.safetensors\"}}"), KAC_E_IO,
                "names the shard model-9.safetensors, which is not there");
    const char *bins = "{\"weight_map\":{\"one\":\"model-1.safetensors\"}}"; /* its shard may be of any format */
    temp_write("m/other.bin.index.json", bins, strlen(bins));
    if (CHECK_OK(kac_weights_open_dir(&s, dir, "other"))) CHECK(s.n_entries == 1);
    kac_weights_close(&s);
    make_file("m/model-3.safetensors", one, strlen(one), 1);
    CHECK_FAILS(open_index("{\"weight_map\":{\"one\":\"model-1.safetensors\",\"two\":\"model-3.safetensors\"}}"),
                KAC_E_FORMAT, "two tensors are named \"one\"");
    copy_file(DATA "/test_deserialization.safetensors", temp_path("m/model.safetensors"));
    if (CHECK_OK(kac_weights_open_dir(&s, dir, "model"))) CHECK(kac_weights_entry_of(&s, "test") != NULL);
    kac_weights_close(&s);
}

/* The bytes of the Python package for the same tensors. */
static void test_golden(void) {
    const float b[] = {0, 1, 2, 3, 4, 5};
    const uint16_t a[] = {0x3E00, 0xC000}, bf[] = {0x3F80, 0x3F00};
    const int64_t scalar = 7;
    const uint8_t bytes[] = {1, 2, 3}, flag[] = {1, 0};
    const double d = 0.1;
    const int32_t i32 = -1;
    const int16_t i16 = -2;
    const int8_t i8 = -3;
#define ITEM(name, data, dtype, ...)                                                                                   \
    { name, kac_tensor_make((void *)(uintptr_t)(data), dtype, __VA_ARGS__) }
    const kac_st_item items[] = {
        ITEM("b", b, KAC_F32, 2, 3),
        ITEM("a", a, KAC_F16, 2),
        {"scalar", kac_tensor_of((void *)(uintptr_t)&scalar, KAC_I64, 0, NULL)},
        ITEM("empty", b, KAC_F32, 0, 3),
        ITEM("bytes", bytes, KAC_U8, 3),
        ITEM("half \"bf\"\n\xc3\xa9", bf, KAC_BF16, 2),
        ITEM("flag", flag, KAC_BOOL, 2),
        ITEM("d", &d, KAC_F64, 1, 1),
        ITEM("i32", &i32, KAC_I32, 1),
        ITEM("i16", &i16, KAC_I16, 1),
        ITEM("i8", &i8, KAC_I8, 1),
    };
    const kac_st_pair metadata[] = {{"format", "pt"}};
    const char *path = temp_path("golden.safetensors");
    CHECK_OK(kac_st_write(path, items, KAC_COUNT_OF(items), metadata, 1));
    char *got, *want;
    size_t n_got, n_want;
    CHECK_OK(kac_file_read(&got, &n_got, path, 1 << 20));
    CHECK_OK(kac_file_read(&want, &n_want, DATA "/golden.safetensors", 1 << 20));
    CHECK(n_got == n_want && memcmp(got, want, n_got) == 0);
    kac_free(got);
    kac_free(want);

    kac_weights s;
    if (!CHECK_OK(kac_weights_open(&s, path))) return;
    for (int i = 0; i < KAC_COUNT_OF(items); i++) {
        kac_tensor x;
        if (!CHECK_OK(kac_weights_find(&s, items[i].name, &x))) continue;
        CHECK(x.dtype == items[i].tensor.dtype && kac_tensor_same_shape(x, items[i].tensor));
        CHECK(memcmp(x.data, items[i].tensor.data, kac_tensor_bytes(x)) == 0);
    }
    kac_weights_close(&s);
}

static void test_write_refuses(void) {
    float v[4] = {0};
    const kac_tensor x = kac_tensor_make(v, KAC_F32, 2, 2);
    const kac_st_item twice[] = {{"a", x}, {"a", x}}, gaps[] = {{"a", kac_tensor_transpose(x, 0, 1)}},
                      reserved[] = {{"__metadata__", x}}, bytes[] = {{"\xff", x}};
    const char *path = temp_path("refused.safetensors");
    CHECK_FAILS(kac_st_write(path, twice, 2, NULL, 0), KAC_E_USAGE, "two tensors");
    CHECK_FAILS(kac_st_write(path, gaps, 1, NULL, 0), KAC_E_USAGE, "gaps");
    CHECK_FAILS(kac_st_write(path, reserved, 1, NULL, 0), KAC_E_USAGE, "__metadata__");
    CHECK_FAILS(kac_st_write(path, bytes, 1, NULL, 0), KAC_E_USAGE, "cannot name");
    CHECK_FAILS(kac_st_write(temp_path("none/x"), twice, 1, NULL, 0), KAC_E_IO, "none/x");
    CHECK(!kac_file_exists(path));
    CHECK_OK(kac_st_write(path, NULL, 0, NULL, 0));
    CHECK_OK(kac_dir_make(temp_path("special")));
    const char *fifo = temp_path("special/fifo");
    CHECK(mkfifo(fifo, 0600) == 0);
    CHECK_FAILS(kac_st_write(fifo, twice, 1, NULL, 0), KAC_E_IO, "not a regular file");
    CHECK_FAILS(kac_st_write(temp_path("special"), twice, 1, NULL, 0), KAC_E_IO, "not a regular file");
    struct stat st;
    CHECK(lstat(fifo, &st) == 0 && S_ISFIFO(st.st_mode));
    CHECK(temp_count(temp_path("special")) == 1);
}

static void test_disk_full(void) {
    enum { N = 100000 };
    CHECK_OK(kac_dir_make(temp_path("full")));
    const char *path = temp_path("full/x.safetensors");
    float *v = calloc(N, sizeof(*v));
    v[0] = 5;
    const kac_st_item small[] = {{"a", kac_tensor_make(v, KAC_F32, 10)}},
                      large[] = {{"a", kac_tensor_make(v, KAC_F32, N)}};
    CHECK_OK(kac_st_write(path, small, 1, NULL, 0));
    struct rlimit old, limit;
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &old);
    limit = old;
    limit.rlim_cur = 100000;
    setrlimit(RLIMIT_FSIZE, &limit);
    CHECK_FAILS(kac_st_write(path, large, 1, NULL, 0), KAC_E_IO, "x.safetensors");
    setrlimit(RLIMIT_FSIZE, &old);
    CHECK(temp_count(temp_path("full")) == 1);
    kac_weights s;
    kac_tensor x;
    if (CHECK_OK(kac_weights_open(&s, path)) && CHECK_OK(kac_weights_find(&s, "a", &x)))
        CHECK(x.shape[0] == 10 && *(float *)x.data == 5);
    kac_weights_close(&s);
    CHECK_OK(kac_st_write(path, large, 1, NULL, 0));
    free(v);
}

int main(void) {
    test_reference();
    test_malformed();
    test_lengths();
    test_like_pickle();
    test_unusual();
    test_folder();
    test_golden();
    test_write_refuses();
    test_disk_full();
    return check_done();
}
