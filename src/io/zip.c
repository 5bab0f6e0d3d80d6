#include "io/zip.h"
#include "io/weights.h"
#include <stdlib.h>
#include <string.h>

/* Source: PKWARE APPNOTE 6.3.10, sections 4.3.7 (local header), 4.3.12 (directory), 4.3.14–16 (its end), 4.5.3 (ZIP64). */
enum {
    END_BYTES = 22,
    END64_BYTES = 56,
    LOCATOR_BYTES = 20,
    ENTRY_BYTES = 46,
    LOCAL_BYTES = 30,
    MAX_ENTRIES = 1 << 20,
};

static uint64_t little(const uint8_t *p, int n_bytes) {
    uint64_t v = 0;
    for (int i = n_bytes - 1; i >= 0; i--) v = v << 8 | p[i];
    return v;
}

static bool is_at(kac_map map, uint64_t at, size_t n, uint32_t signature) {
    return at <= map.n && n <= map.n - at && little(map.data + at, 4) == signature;
}

/* Where the directory lies and how many entries it has. */
typedef struct directory {
    uint64_t at, n_bytes, n_entries;
} directory;

static kac_status find_directory(directory *d, kac_map map, const char *path) {
    enum { MAX_COMMENT = 65535 };
    if (map.n < END_BYTES) return KAC_FAIL(KAC_E_FORMAT, "%s: the archive is cut off", path);
    size_t end = map.n - END_BYTES;
    const size_t first = end > MAX_COMMENT ? end - MAX_COMMENT : 0;
    while (end > first && !is_at(map, end, END_BYTES, 0x06054b50)) end--;
    if (!is_at(map, end, END_BYTES, 0x06054b50))
        return KAC_FAIL(KAC_E_FORMAT, "%s: the archive's directory is missing at its end: was the download cut off?",
                        path);
    const uint8_t *p = map.data + end;
    *d = (directory){.n_entries = little(p + 10, 2), .n_bytes = little(p + 12, 4), .at = little(p + 16, 4)};
    if (end >= LOCATOR_BYTES && is_at(map, end - LOCATOR_BYTES, LOCATOR_BYTES, 0x07064b50)) {
        const uint64_t at = little(p - LOCATOR_BYTES + 8, 8);
        if (!is_at(map, at, END64_BYTES, 0x06064b50))
            return KAC_FAIL(KAC_E_FORMAT, "%s: the archive's ZIP64 directory is not where it should be", path);
        p = map.data + at;
        *d = (directory){.n_entries = little(p + 32, 8), .n_bytes = little(p + 40, 8), .at = little(p + 48, 8)};
    }
    if (d->at > end || d->n_bytes > end - d->at || d->n_entries > d->n_bytes / ENTRY_BYTES)
        return KAC_FAIL(KAC_E_FORMAT, "%s: the archive's directory does not lie in the file", path);
    if (d->n_entries > MAX_ENTRIES)
        return KAC_FAIL(KAC_E_FORMAT, "%s: the archive claims %llu entries", path, (unsigned long long)d->n_entries);
    return KAC_OK;
}

/* The sizes that did not fit into 32 bits, from the extra field 0x0001, in the order of the format. */
static void read_zip64(const uint8_t *extra, size_t n, uint64_t *size, uint64_t *packed, uint64_t *offset) {
    while (n >= 4) {
        const size_t n_field = little(extra + 2, 2);
        if (n_field > n - 4) return;
        if (little(extra, 2) == 1) {
            uint64_t *const wanted[] = {size, packed, offset};
            size_t at = 4;
            for (int i = 0; i < 3; i++) {
                if (*wanted[i] != 0xFFFFFFFF || at + 8 > n_field + 4) continue;
                *wanted[i] = little(extra + at, 8);
                at += 8;
            }
            return;
        }
        extra += 4 + n_field;
        n -= 4 + n_field;
    }
}

/* One directory entry at `at`, which is moved behind it. */
static kac_status read_entry(kac_zip_entry *e, kac_map map, uint64_t *at, uint64_t end, const char *path) {
    if (*at > end || end - *at < ENTRY_BYTES || !is_at(map, *at, ENTRY_BYTES, 0x02014b50))
        return KAC_FAIL(KAC_E_FORMAT, "%s: the archive's directory is broken", path);
    const uint8_t *p = map.data + *at;
    const unsigned flags = (unsigned)little(p + 8, 2), method = (unsigned)little(p + 10, 2);
    uint64_t packed = little(p + 20, 4), size = little(p + 24, 4), offset = little(p + 42, 4);
    const size_t n_name = little(p + 28, 2), n_extra = little(p + 30, 2), n_comment = little(p + 32, 2);
    if (n_name + n_extra + n_comment > end - *at - ENTRY_BYTES)
        return KAC_FAIL(KAC_E_FORMAT, "%s: the archive's directory is broken", path);
    *at += ENTRY_BYTES + n_name + n_extra + n_comment;
    e->name = kac_alloc(n_name + 1);
    if (e->name == NULL) return KAC_E_MEMORY;
    memcpy(e->name, p + ENTRY_BYTES, n_name);
    read_zip64(p + ENTRY_BYTES + n_name, n_extra, &size, &packed, &offset);
    char shown[96];
    if (memchr(e->name, 0, n_name) != NULL)
        return KAC_FAIL(KAC_E_FORMAT, "%s: the name of an archive's entry holds a 0 byte", path);
    e->packed = method != 0 || (flags & 1);
    if (!is_at(map, offset, LOCAL_BYTES, 0x04034b50))
        return KAC_FAIL(KAC_E_FORMAT, "%s: the entry %s does not lie in the file", path,
                        kac_weights_shown(e->name, shown));
    const uint64_t start = offset + LOCAL_BYTES + little(map.data + offset + 26, 2) + little(map.data + offset + 28, 2);
    if (start > map.n || packed > map.n - start || (!e->packed && size != packed))
        return KAC_FAIL(KAC_E_FORMAT, "%s: the entry %s of %llu bytes does not lie in the file of %zu", path,
                        kac_weights_shown(e->name, shown), (unsigned long long)size, map.n);
    e->data = e->packed ? NULL : map.data + start;
    e->n = size;
    return KAC_OK;
}

static int by_name(const void *pa, const void *pb) {
    return strcmp(((const kac_zip_entry *)pa)->name, ((const kac_zip_entry *)pb)->name);
}

static kac_status read_all(kac_zip *z, kac_map map, const char *path) {
    directory d = {0};
    KAC_TRY(find_directory(&d, map, path));
    z->entries = kac_alloc(sizeof(*z->entries) * KAC_MAX(d.n_entries, 1));
    if (z->entries == NULL) return KAC_E_MEMORY;
    uint64_t at = d.at;
    while (z->n_entries < (int)d.n_entries)
        KAC_TRY(read_entry(&z->entries[z->n_entries++], map, &at, d.at + d.n_bytes, path));
    qsort(z->entries, (size_t)z->n_entries, sizeof(*z->entries), by_name);
    for (int i = 1; i < z->n_entries; i++) {
        char shown[96];
        if (by_name(&z->entries[i - 1], &z->entries[i]) == 0)
            return KAC_FAIL(KAC_E_FORMAT, "%s: two entries of the archive are named %s", path,
                            kac_weights_shown(z->entries[i].name, shown));
    }
    return KAC_OK;
}

kac_status kac_zip_open(kac_zip *z, kac_map map, const char *path) {
    *z = (kac_zip){0};
    const kac_status s = read_all(z, map, path);
    if (s != KAC_OK) kac_zip_close(z);
    return s;
}

void kac_zip_close(kac_zip *z) {
    for (int i = 0; i < z->n_entries; i++) kac_free(z->entries[i].name);
    kac_free(z->entries);
    *z = (kac_zip){0};
}

const kac_zip_entry *kac_zip_find(const kac_zip *z, const char *name) {
    const kac_zip_entry key = {.name = (char *)(uintptr_t)name};
    return z->n_entries == 0 ? NULL : bsearch(&key, z->entries, (size_t)z->n_entries, sizeof(key), by_name);
}

kac_status kac_zip_usable(const kac_zip_entry *e, const char *path) {
    char shown[96];
    return e->packed ? KAC_FAIL(KAC_E_UNSUPPORTED,
                                "%s: the entry %s is compressed or encrypted, which PyTorch never does: unpack the "
                                "archive and pack it without compression (zip -0)",
                                path, kac_weights_shown(e->name, shown))
                     : KAC_OK;
}
