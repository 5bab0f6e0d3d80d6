/* Arenas, text, files, digests, randomness. */
#include "base/base.h"
#include "base/json.h"
#include "base/memory.h"
#include "base/philox.h"
#include "check.h"
#include <kac/rng.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static void test_arena(void) {
    kac_arena a;
    CHECK_OK(kac_arena_init(&a, "test", 8192));
    char *p = kac_arena_take(&a, 100);
    CHECK(p != NULL && (uintptr_t)p % 64 == 0);
    const size_t mark = kac_arena_mark(&a);
    CHECK(kac_arena_take(&a, 4096) != NULL);
    CHECK(kac_arena_take(&a, 8192) == NULL);
    CHECK(strstr(kac_error(), "test memory is full") != NULL);
    CHECK(kac_arena_take(&a, SIZE_MAX - 8) == NULL);
    kac_arena_release(&a, mark);
    CHECK(a.used == 128 && a.peak == 128 + 4096);
    kac_arena_free(&a);
    kac_alloc_fail_after(2);
    void *first = kac_alloc(8), *second = kac_alloc(8);
    kac_alloc_fail_after(0);
    CHECK(first != NULL && second == NULL);
    kac_free(first);
}

static void test_files(const char *dir) {
    char *path = kac_path_join(dir, "a/b/file"), *folder = kac_path_join(dir, "a/b");
    CHECK_OK(kac_dir_make(folder));
    CHECK_OK(kac_dir_make(folder));
    CHECK_OK(kac_file_write(path, "hello", 5));
    CHECK_OK(kac_file_write(path, "hello!", 6));
    char *text;
    size_t n;
    CHECK_OK(kac_file_read(&text, &n, path, 100));
    CHECK(n == 6 && strcmp(text, "hello!") == 0);
    kac_free(text);
    CHECK_FAILS(kac_file_read(&text, &n, path, 3), KAC_E_IO, "more than the 3");
    CHECK_FAILS(kac_file_read(&text, &n, folder, 3), KAC_E_IO, "not a regular file");
    CHECK_FAILS(kac_file_write(folder, "x", 1), KAC_E_IO, "not a regular file");
    CHECK(kac_dir_exists(folder));
    char *fifo = kac_path_join(dir, "fifo");
    CHECK(mkfifo(fifo, 0600) == 0);
    CHECK_FAILS(kac_file_write(fifo, "x", 1), KAC_E_IO, "not a regular file");
    CHECK_FAILS(kac_file_read(&text, &n, fifo, 3), KAC_E_IO, "not a regular file");
    char *below = kac_path_join(path, "below");
    CHECK_FAILS(kac_dir_make(below), KAC_E_IO, "cannot make the folder");
    char hex[65];
    CHECK_OK(kac_sha256_file(hex, path));
    CHECK_TEXT(hex, "ce06092fb948d9ffac7d1a376e404b26b7575bcc11ee05a4615fef4fec3a308b");
    kac_free(path), kac_free(folder), kac_free(fifo), kac_free(below);
}

static void test_digests(void) {
    char hex[65];
    kac_sha256(hex, "abc", 3);
    CHECK_TEXT(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    kac_sha256(hex, "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 56);
    CHECK_TEXT(hex, "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    CHECK(kac_crc32("123456789", 9, 0) == 0xcbf43926u);
    CHECK(kac_crc32("6789", 4, kac_crc32("12345", 5, 0)) == 0xcbf43926u);
}

static void test_philox(void) {
    /* Known answers of Random123's kat_vectors for philox4x32-10. */
    const kac_philox_block zero = kac_philox_rounds((kac_philox_block){{0, 0, 0, 0}}, 0, 0);
    CHECK(zero.v[0] == 0x6627e8d5u && zero.v[1] == 0xe169c58du && zero.v[2] == 0xbc57ac4cu && zero.v[3] == 0x9b00dbd8u);
    const kac_philox_block ones = kac_philox_rounds((kac_philox_block){{~0u, ~0u, ~0u, ~0u}}, ~0u, ~0u);
    CHECK(ones.v[0] == 0x408f276du && ones.v[1] == 0x41c83b0eu && ones.v[2] == 0xa20bc7c6u && ones.v[3] == 0x6d5451fdu);
    const kac_key key = {.seed = 7, .purpose = KAC_PURPOSE_TEST, .step = 3};
    enum { N = 1 << 18 };
    float *z = kac_alloc(N * sizeof *z), part[7];
    kac_rng_normal(z, N, key, 5, 0);
    kac_rng_normal(part, 7, key, 5, 1001);
    CHECK(memcmp(part, z + 1001, sizeof part) == 0);
    double m1 = 0, m2 = 0, m4 = 0;
    for (int i = 0; i < N; i++) m1 += z[i], m2 += (double)z[i] * z[i], m4 += pow(z[i], 4);
    CHECK_NEAR(m1 / N, 0, 5 / sqrt(N));
    CHECK_NEAR(m2 / N, 1, 5 * sqrt(2.0 / N));
    CHECK_NEAR(m4 / N, 3, 5 * sqrt(96.0 / N));
    /* The bits must be the same everywhere: compilers, optimisation levels, devices. */
    CHECK(kac_crc32(z, N * sizeof *z, 0) == 0xacbcbf18u);
    const double u = kac_rng_uniform(key, 5, 2);
    CHECK(u > 0 && u < 1);
    kac_free(z);
}

static void test_json(void) {
    kac_json j;
    const char *text = "{\"a\": 3, \"b\": 2.5, \"c\": [1, 2], \"d\": \"x\", \"e\": true, \"f\": null}";
    CHECK_OK(kac_json_parse(&j, text, strlen(text), "t.json"));
    int64_t i = -1, list[2];
    double r = 0;
    bool b = false;
    const char *s = NULL;
    int n = 0;
    CHECK_OK(kac_json_int(&j, j.root, "a", &i));
    CHECK_OK(kac_json_real(&j, j.root, "b", &r));
    CHECK_OK(kac_json_ints(&j, j.root, "c", list, 2, &n));
    CHECK_OK(kac_json_text(&j, j.root, "d", &s));
    CHECK_OK(kac_json_bool(&j, j.root, "e", &b));
    CHECK(i == 3 && r == 2.5 && n == 2 && list[1] == 2 && strcmp(s, "x") == 0 && b);
    CHECK_OK(kac_json_int(&j, j.root, "f", &i));
    CHECK(i == 3);
    CHECK_FAILS(kac_json_int(&j, j.root, "b", &i), KAC_E_FORMAT, "t.json: \"b\" must be a whole number");
    CHECK_FAILS(kac_json_bool(&j, j.root, "a", &b), KAC_E_FORMAT, "true or false");
    CHECK_FAILS(kac_json_ints(&j, j.root, "c", list, 1, &n), KAC_E_FORMAT, "more than 1");
    kac_json_free(&j);
    CHECK_FAILS(kac_json_parse(&j, "[1]", 3, "t"), KAC_E_FORMAT, "JSON object");
    CHECK_FAILS(kac_json_parse(&j, "{} x", 4, "t"), KAC_E_FORMAT, "after");
    CHECK_FAILS(kac_json_parse(&j, "{\"a\":", 5, "t"), KAC_E_FORMAT, "not valid JSON");
}

int main(void) {
    char dir[] = "/tmp/kac-base-XXXXXX";
    if (mkdtemp(dir) == NULL) return 1;
    test_arena();
    test_files(dir);
    test_digests();
    test_philox();
    test_json();
    const char *command[] = {"a/b/file", "a/b", "a", "fifo"};
    for (int i = 0; i < KAC_COUNT_OF(command); i++) {
        char *path = kac_path_join(dir, command[i]);
        remove(path);
        kac_free(path);
    }
    CHECK(rmdir(dir) == 0);
    return check_done();
}
