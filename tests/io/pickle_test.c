#include "check.h"
#include "io/safetensors.h"
#include "io/weights.h"
#include "util/temp.h"
#include <stdlib.h>

#define DATA "tests/io/data/torch/"

/* ---- files of PyTorch ---- */

static void check_twin(const char *path, const char *prefix, int n_missing) {
    kac_weights a, b;
    if (!CHECK_OK(kac_weights_open(&a, path)) || !CHECK_OK(kac_weights_open(&b, DATA "twin.safetensors"))) return;
    CHECK(a.files[0].torch && !b.files[0].torch);
    CHECK(a.n_entries == b.n_entries - n_missing);
    for (int i = 0; i < b.n_entries; i++) {
        char name[64];
        kac_tensor x, y;
        snprintf(name, sizeof name, "%s%s", prefix, b.entries[i].name);
        if (n_missing > 0 && kac_weights_entry_of(&a, name) == NULL) continue;
        if (!CHECK_OK(kac_weights_find(&a, name, &x)) || !CHECK_OK(kac_weights_view(&b, &b.entries[i], &y))) continue;
        CHECK(x.dtype == y.dtype && kac_tensor_same_shape(x, y) && kac_tensor_contiguous(x));
        if (!CHECK(memcmp(x.data, y.data, kac_tensor_bytes(y)) == 0)) printf("  %s: %s\n", path, name);
        CHECK((uintptr_t)x.data % kac_dtype_bytes(x.dtype) == 0 || kac_tensor_bytes(x) == 0);
    }
    kac_weights_close(&a);
    kac_weights_close(&b);
}

static void test_files(void) {
    check_twin(DATA "plain.pt", "", 0);
    check_twin(DATA "protocol5.pt", "", 0);
    check_twin(DATA "training.ckpt", "", 0);
    check_twin(DATA "old.pt", "", 2);
    kac_weights w;
    if (CHECK_OK(kac_weights_open(&w, DATA "training.ckpt"))) {
        CHECK_TEXT(kac_weights_metadata(&w, "global_step"), "875000");
        CHECK_TEXT(kac_weights_metadata(&w, "lr"), "0.5");
        CHECK_TEXT(kac_weights_metadata(&w, "name"), "h\xc3\xa9");
        CHECK(kac_weights_metadata(&w, "epoch") == NULL);
        kac_weights_close(&w);
    }
    if (CHECK_OK(kac_weights_open(&w, DATA "nested.pt"))) {
        CHECK(w.n_entries == 3);
        CHECK_TEXT(w.entries[0].name, "nested.a.b.0");
        CHECK_TEXT(w.entries[1].name, "nested.a.b.1");
        CHECK_TEXT(w.entries[2].name, "string_to_param.*");
        kac_weights_close(&w);
    }
    CHECK_FAILS(kac_weights_open(&w, DATA "module.pt"), KAC_E_UNSUPPORTED, "import torch.nn.modules.linear.Linear");
    CHECK_FAILS(kac_weights_open(&w, DATA "script.pt"), KAC_E_UNSUPPORTED, "TorchScript");
    CHECK(w.n_files == 0 && w.entries == NULL);
}

/* Cut off anywhere, or with any byte turned over: an answer, and never more than the file holds. */
static void test_damaged(const char *path, bool old) {
    char *data;
    size_t n;
    kac_weights w;
    if (!CHECK_OK(kac_file_read(&data, &n, path, 1 << 20))) return;
    for (size_t cut = 0; cut < n; cut += 64) {
        const kac_status s = kac_weights_open(&w, temp_write("cut.pt", data, cut));
        if (!CHECK(s == KAC_E_FORMAT || s == KAC_E_UNSUPPORTED)) printf("  %s cut to %zu bytes\n", path, cut);
        kac_weights_close(&w);
    }
    for (size_t i = 0; i < n; i += old ? 1 : 3) {
        data[i] ^= 0x41;
        if (kac_weights_open(&w, temp_write("bent.pt", data, n)) == KAC_OK)
            for (int k = 0; k < w.n_entries; k++) {
                kac_tensor x;
                (void)kac_weights_view(&w, &w.entries[k], &x);
            }
        kac_weights_close(&w);
        data[i] ^= 0x41;
    }
    kac_free(data);
}

/* ---- archives made here ---- */

static struct {
    uint8_t bytes[1 << 16], directory[1 << 12];
    size_t n, n_directory;
    int n_entries;
} archive;

static void put(uint8_t *to, size_t *at, uint64_t v, int n) {
    for (int i = 0; i < n; i++) to[(*at)++] = (uint8_t)(v >> (8 * i));
}

/* One stored entry; `size` is what the directory claims. */
static void add_entry(const char *name, const void *data, size_t n, uint64_t size, int method) {
    const size_t start = archive.n, n_name = strlen(name);
    put(archive.bytes, &archive.n, 0x04034b50, 4);
    for (int i = 0; i < 22; i++) archive.bytes[archive.n++] = 0;
    put(archive.bytes, &archive.n, n_name, 2);
    put(archive.bytes, &archive.n, 0, 2);
    memcpy(archive.bytes + archive.n, name, n_name);
    memcpy(archive.bytes + archive.n + n_name, data, n);
    archive.n += n_name + n;
    uint8_t *d = archive.directory;
    put(d, &archive.n_directory, 0x02014b50, 4);
    put(d, &archive.n_directory, 0, 6);
    put(d, &archive.n_directory, (uint64_t)method, 2);
    put(d, &archive.n_directory, 0, 8);
    put(d, &archive.n_directory, size, 4);
    put(d, &archive.n_directory, size, 4);
    put(d, &archive.n_directory, n_name, 2);
    put(d, &archive.n_directory, 0, 8);
    put(d, &archive.n_directory, 0, 4);
    put(d, &archive.n_directory, start, 4);
    memcpy(d + archive.n_directory, name, n_name);
    archive.n_directory += n_name;
    archive.n_entries++;
}

static const char *finish(int n_claimed) {
    const size_t at = archive.n;
    memcpy(archive.bytes + archive.n, archive.directory, archive.n_directory);
    archive.n += archive.n_directory;
    put(archive.bytes, &archive.n, 0x06054b50, 4);
    put(archive.bytes, &archive.n, 0, 4);
    put(archive.bytes, &archive.n, (uint64_t)n_claimed, 2);
    put(archive.bytes, &archive.n, (uint64_t)n_claimed, 2);
    put(archive.bytes, &archive.n, archive.n_directory, 4);
    put(archive.bytes, &archive.n, at, 4);
    put(archive.bytes, &archive.n, 0, 2);
    const char *path = temp_write("made.pt", archive.bytes, archive.n);
    archive.n = archive.n_directory = 0;
    archive.n_entries = 0;
    return path;
}

/* An archive of this pickle and one storage "0" of 16 bytes. */
static const char *made(const void *pickle, size_t n) {
    static const float numbers[4] = {1, 2, 3, 4};
    add_entry("x/data.pkl", pickle, n, n, 0);
    add_entry("x/data/0", numbers, sizeof numbers, sizeof numbers, 0);
    return finish(archive.n_entries);
}

/* {"a": _rebuild_tensor_v2(storage(KEY, N), OFFSET, SHAPE, STRIDE, False, {})} */
#define HEAD "\x80\x02}X\x01\0\0\0a"
#define REBUILD "ctorch._utils\n_rebuild_tensor_v2\n"
#define STORAGE(type, key, n) "((X\x07\0\0\0storagectorch\n" type "\nX\x01\0\0\0" key "X\x03\0\0\0cpuK" n "tQ"
#define TENSOR(type, key, n, offset, shape, stride)                                                                    \
    REBUILD STORAGE(type, key, n)                                                                                      \
    offset shape stride "\x89}tR"
#define GOOD TENSOR("FloatStorage", "0", "\x04", "K\0", "K\x02K\x02\x86", "K\x02K\x01\x86")
#define BYTES(text) text, sizeof(text) - 1

static const struct {
    const char *pickle;
    size_t n;
    kac_status status; /* KAC_OK: must open */
    const char *text;
} pickles[] = {
    {BYTES(HEAD GOOD "s."), KAC_OK, NULL},
    {BYTES(HEAD "cos\nsystem\nX\x04\0\0\0true\x85Rs."), KAC_E_UNSUPPORTED, "import os.system"},
    {BYTES(HEAD "cposix\nsystem\nX\x04\0\0\0true\x85Rs."), KAC_E_UNSUPPORTED, "posix.system"},
    {BYTES("\x80\x04}\x8c\x01"
           "a\x8c\x08"
           "builtins\x8c\x04"
           "eval\x93\x8c\x01"
           "1\x85Rs."),
     KAC_E_UNSUPPORTED, "builtins.eval"},
    {BYTES(HEAD "ctorch.storage\n_load_from_bytes\nC\x01x\x85Rs."), KAC_E_UNSUPPORTED,
     "torch.storage._load_from_bytes"},
    {BYTES(HEAD "cos.path\x01\njoin\n)Rs."), KAC_E_UNSUPPORTED, "os.path?.join"},
    {BYTES(HEAD "(ios\nsystem\ns."), KAC_E_UNSUPPORTED, "opcode 0x69"},
    {BYTES(HEAD "\x82\x01s."), KAC_E_UNSUPPORTED, "opcode 0x82"},
    {BYTES(HEAD "P1\ns."), KAC_E_UNSUPPORTED, "opcode 0x50"},
    {BYTES("\x80\x06N."), KAC_E_FORMAT, "protocol"},
    {BYTES("\x80\x02N."), KAC_E_FORMAT, "no dictionary"},
    {BYTES("\x80\x02}."), KAC_E_FORMAT, "holds no tensors"},
    {BYTES("\x80\x02" GOOD "."), KAC_E_UNSUPPORTED, "one tensor without a name"},
    {BYTES("\x80\x02}"), KAC_E_FORMAT, "cut off"},
    {BYTES("\x80\x02X\xff\xff\xff\xff"
           "a"),
     KAC_E_FORMAT, "cut off"},
    {BYTES("\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\xff"
           "a"),
     KAC_E_FORMAT, "cut off"},
    {BYTES("\x80\x02"
           "ctorch"),
     KAC_E_FORMAT, "cut off"},
    {BYTES("\x80\x02"
           "0."),
     KAC_E_FORMAT, "takes more than it gave"},
    {BYTES("\x80\x02."), KAC_E_FORMAT, "takes more than it gave"},
    {BYTES("\x80\x02(."), KAC_E_FORMAT, "takes more than it gave"},
    {BYTES("\x80\x02t."), KAC_E_FORMAT, "mark is missing"},
    {BYTES("\x80\x02}(Nu."), KAC_E_FORMAT, "no list"},
    {BYTES("\x80\x02(Nd."), KAC_E_FORMAT, "key has no value"},
    {BYTES("\x80\x02h\x05."), KAC_E_FORMAT, "memo has no such entry"},
    {BYTES("\x80\x02j\xff\xff\xff\xff."), KAC_E_FORMAT, "memo has no such entry"},
    {BYTES("\x80\x02}r\xff\xff\xff\xff."), KAC_E_FORMAT, "memo is too large"},
    {BYTES("\x80\x02}q\x01X\x01\0\0\0ah\x01s."), KAC_E_FORMAT, "contain itself"},
    {BYTES("\x80\x02}X\x01\0\0\0a]q\x01h\x01h\x01"
           "as."),
     KAC_E_FORMAT, NULL},
    {BYTES(HEAD "NK\x01\x85Rs."), KAC_E_FORMAT, "calls what is no function"},
    {BYTES(HEAD "ctorch\nFloatStorage\n)Rs."), KAC_E_FORMAT, "calls what is no function"},
    {BYTES(HEAD REBUILD "K\x01\x85Rs."), KAC_E_FORMAT, "description"},
    {BYTES(HEAD "NQs."), KAC_E_FORMAT, "no storage"},
    {BYTES(HEAD ")Qs."), KAC_E_FORMAT, "no storage"},
    {BYTES(HEAD TENSOR("FloatStorage", "1", "\x04", "K\0", "K\x02\x85", "K\x01\x85") "s."), KAC_E_FORMAT,
     "no storage 1"},
    {BYTES(HEAD TENSOR("FloatStorage", "0", "\x04", "K\x01", "K\x04\x85", "K\x01\x85") "s."), KAC_E_FORMAT,
     "\"a\" does not lie in its storage"},
    {BYTES(HEAD TENSOR("FloatStorage", "0", "\xff", "K\0", "K\x05\x85", "K\x01\x85") "s."), KAC_E_FORMAT,
     "does not lie in its storage"},
    {BYTES(HEAD TENSOR("DoubleStorage", "0", "\x04", "K\0", "K\x04\x85", "K\x01\x85") "s."), KAC_E_FORMAT,
     "does not lie in its storage"},
    {BYTES(HEAD TENSOR("FloatStorage", "0", "\x04", "K\0", "K\x02\x85", "K\xff\x85") "s."), KAC_E_FORMAT,
     "does not lie in its storage"},
    {BYTES(HEAD TENSOR("FloatStorage", "0", "\x04", "J\xff\xff\xff\xff", "K\x02\x85", "K\x01\x85") "s."), KAC_E_FORMAT,
     "description"},
    {BYTES(HEAD TENSOR("FloatStorage", "0", "\x04", "K\0", "J\xff\xff\xff\xff\x85", "K\x01\x85") "s."), KAC_E_FORMAT,
     "description"},
    {BYTES(HEAD TENSOR("FloatStorage", "0", "\x04", "K\0", "K\x02\x85", "J\xff\xff\xff\xff\x85") "s."), KAC_E_FORMAT,
     "description"},
    {BYTES(HEAD TENSOR("FloatStorage", "0", "\x04", "K\0", "K\x02\x85", ")") "s."), KAC_E_FORMAT, "description"},
    {BYTES(HEAD TENSOR("FloatStorage", "0", "\x04", "\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f", "K\x02\x85",
                       "K\x01\x85") "s."),
     KAC_E_FORMAT, "overflows"},
    {BYTES(HEAD TENSOR("FloatStorage", "0", "\x04", "K\0", "\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7fK\x08\x86",
                       "K\0K\0\x86") "s."),
     KAC_E_FORMAT, "overflows"},
    {BYTES(HEAD TENSOR("FloatStorage", "0", "\x04", "K\0", "J\xff\xff\xff\x7f\x85", "K\0\x85") "s."), KAC_E_FORMAT,
     "claims more bytes"},
    {BYTES(HEAD GOOD "sX\x01\0\0\0b" GOOD "s."), KAC_OK, NULL},
    {BYTES(HEAD GOOD "sX\x01\0\0\0a" GOOD "s."), KAC_E_FORMAT, "two tensors are named \"a\""},
};

static void test_pickles(void) {
    kac_weights w;
    for (int i = 0; i < KAC_COUNT_OF(pickles); i++) {
        const char *path = made(pickles[i].pickle, pickles[i].n);
        if (pickles[i].status == KAC_OK)
            CHECK_OK(kac_weights_open(&w, path));
        else if (!CHECK_FAILS(kac_weights_open(&w, path), pickles[i].status, pickles[i].text))
            printf("  case %d\n", i);
        kac_weights_close(&w);
    }
}

/* Long pickles that ask for memory, depth or time. */
static void test_greedy(void) {
    enum { N = 1 << 15 };
    static char text[N + 64];
    kac_weights w;
    memset(text, ']', N); /* lists, then each into the one below it */
    memset(text + N / 2, 'a', N / 2 - 1);
    text[N - 1] = '.';
    CHECK_FAILS(kac_weights_open(&w, made(text, N)), KAC_E_FORMAT, "no dictionary");
    memset(text, '(', N);
    CHECK_FAILS(kac_weights_open(&w, made(text, N)), KAC_E_FORMAT, "cut off");
    /* {"a": d1}, d1 = [d2, d2], d2 = [d3, d3], … 30 times: a billion visits. */
    size_t n = 0;
    text[n++] = ']';
    for (int i = 0; i < 29; i++) {
        text[n++] = 'q', text[n++] = (char)i, text[n++] = '0';
        text[n++] = ']', text[n++] = 'h', text[n++] = (char)i, text[n++] = 'a';
        text[n++] = 'h', text[n++] = (char)i, text[n++] = 'a';
    }
    memcpy(text + n,
           "q\x40"
           "0}X\x01\0\0\0ah\x40s.",
           14);
    CHECK_FAILS(kac_weights_open(&w, made(text, n + 14)), KAC_E_FORMAT, "too many values");
    /* A dict with a dict under "a", forty deep. */
    n = 0;
    for (int i = 0; i < 40; i++) memcpy(text + n, "}X\x01\0\0\0a", 7), n += 7;
    text[n++] = 'N';
    for (int i = 0; i < 40; i++) text[n++] = 's';
    text[n++] = '.';
    CHECK_FAILS(kac_weights_open(&w, made(text, n)), KAC_E_FORMAT, "nested deeper");
}

static void test_archives(void) {
    static const char pickle[] = HEAD GOOD "s.";
    static const float numbers[4];
    const size_t n = sizeof pickle - 1;
    kac_weights w;
    add_entry("data.pkl", pickle, n, n, 0); /* without a folder */
    add_entry("data/0", numbers, 16, 16, 0);
    CHECK_OK(kac_weights_open(&w, finish(2)));
    kac_weights_close(&w);
    add_entry("x/data.pkl", pickle, n, n, 0);
    add_entry("x/data/0", numbers, 16, 1000000, 0);
    CHECK_FAILS(kac_weights_open(&w, finish(2)), KAC_E_FORMAT, "x/data/0 of 1000000 bytes does not lie in the file");
    add_entry("x/data.pkl", pickle, n, n, 0);
    add_entry("x/data/0", numbers, 16, 12, 0);
    CHECK_FAILS(kac_weights_open(&w, finish(2)), KAC_E_FORMAT, "does not lie in its storage");
    add_entry("x/data.pkl", pickle, n, n, 8);
    add_entry("x/data/0", numbers, 16, 16, 0);
    CHECK_FAILS(kac_weights_open(&w, finish(2)), KAC_E_UNSUPPORTED, "x/data.pkl is compressed");
    add_entry("x/data.pkl", pickle, n, n, 0);
    add_entry("x/data/0", numbers, 16, 16, 8);
    CHECK_FAILS(kac_weights_open(&w, finish(2)), KAC_E_UNSUPPORTED, "x/data/0 is compressed");
    add_entry("x/data.pkl", pickle, n, n, 0);
    add_entry("x/data.pkl", pickle, n, n, 0);
    CHECK_FAILS(kac_weights_open(&w, finish(2)), KAC_E_FORMAT, "two entries");
    add_entry("x/data.pkl", pickle, n, n, 0);
    add_entry("y/data.pkl", pickle, n, n, 0);
    CHECK_FAILS(kac_weights_open(&w, finish(2)), KAC_E_FORMAT, "more than one data.pkl");
    add_entry("x/byteorder", "big", 3, 3, 0);
    add_entry("x/data.pkl", pickle, n, n, 0);
    CHECK_FAILS(kac_weights_open(&w, finish(2)), KAC_E_UNSUPPORTED, "little-endian");
    add_entry("word/document.xml", pickle, n, n, 0);
    CHECK_FAILS(kac_weights_open(&w, finish(1)), KAC_E_UNSUPPORTED, "not PyTorch's");
    add_entry("x/data.pkl", pickle, n, n, 0);
    CHECK_FAILS(kac_weights_open(&w, finish(1000)), KAC_E_FORMAT, "directory does not lie");
    add_entry("x/data.pkl", pickle, n, n, 0);
    CHECK_FAILS(kac_weights_open(&w, finish(2)), KAC_E_FORMAT, "directory");
}

int main(void) {
    test_files();
    test_damaged(DATA "plain.pt", false);
    test_damaged(DATA "old.pt", true);
    test_pickles();
    test_greedy();
    test_archives();
    return check_done();
}
