/* What everything stands on: memory, arenas, files, clocks, text buffers. No tensors. */
#ifndef KAC_BASE_H
#define KAC_BASE_H

#include <kac/status.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Our own bugs; stays on in release. */
#define KAC_ASSERT(cond) ((cond) ? (void)0 : kac_assert_failed(#cond, __FILE__, __LINE__))
_Noreturn void kac_assert_failed(const char *cond, const char *file, int line);

#define KAC_COUNT_OF(a) ((int)(sizeof(a) / sizeof((a)[0])))
#define KAC_MIN(a, b) ((a) < (b) ? (a) : (b))
#define KAC_MAX(a, b) ((a) > (b) ? (a) : (b))

/* ---- heap: the only calls of malloc and free outside cuda/; tests can make the n-th one fail ---- */
void *kac_alloc(size_t n_bytes);            /* zeroed; NULL and a stored message when out of memory */
void *kac_realloc(void *p, size_t n_bytes); /* grown part not zeroed; NULL leaves p as it was */
void kac_free(void *p);                     /* NULL allowed */
char *kac_strdup(const char *s);
char *kac_format(const char *format, ...)
    __attribute__((format(printf, 1, 2))); /* caller frees; NULL when out of memory */

/* ---- arenas: the owners of all tensors ---- */
typedef struct kac_arena {
    const char *name; /* for messages: "model", "run", "scratch" */
    char *base;
    size_t cap, used, peak;
    bool counting; /* hands out addresses that must not be touched: a plan run */
} kac_arena;

/* Reserves address space for cap bytes; memory is committed as it is touched. */
kac_status kac_arena_init(kac_arena *a, const char *name, size_t cap);
void kac_arena_init_counting(kac_arena *a, const char *name);
void kac_arena_free(kac_arena *a);
/* 64-byte aligned, not zeroed. NULL and a stored KAC_E_MEMORY message when the arena is full. */
void *kac_arena_take(kac_arena *a, size_t n_bytes);
size_t kac_arena_mark(const kac_arena *a);
void kac_arena_release(kac_arena *a, size_t mark);

/* ---- growing text ---- */
typedef struct kac_text {
    char *s; /* always terminated once something was added; NULL before */
    size_t n, cap;
    bool failed; /* out of memory: later adds do nothing */
} kac_text;
void kac_text_add(kac_text *t, const char *format, ...) __attribute__((format(printf, 2, 3)));
void kac_text_add_bytes(kac_text *t, const char *bytes, size_t n);
void kac_text_free(kac_text *t);

/* ---- files ---- */
/* Whole file with a terminating 0 (not counted in *n). KAC_E_IO when unreadable or larger than max_bytes. Caller:
 * kac_free. */
kac_status kac_file_read(char **out, size_t *n, const char *path, size_t max_bytes);
/* Writes to a temporary file beside `path`, syncs, renames. An existing `path` that is not a regular file is refused,
 * never replaced. On failure nothing is left behind and an old file stays as it was. */
kac_status kac_file_write(const char *path, const void *data, size_t n);
bool kac_file_exists(const char *path);
bool kac_dir_exists(const char *path);
kac_status kac_dir_make(const char *path); /* with parents; an existing folder is fine */
/* path/name into a fresh string; caller frees. */
char *kac_path_join(const char *path, const char *name);
const char *kac_path_base(const char *path); /* after the last '/' */

/* A read-only mapping of a whole file. */
typedef struct kac_map {
    const uint8_t *data;
    size_t n;
} kac_map;
kac_status kac_map_open(kac_map *m, const char *path);
void kac_map_close(kac_map *m);

/* ---- clocks, machine ---- */
double kac_now_ms(void);                 /* monotonic */
size_t kac_memory_peak_bytes(void);      /* of this process so far */
size_t kac_memory_available_bytes(void); /* what this machine (and its control group) can still give */
int kac_cpu_count(void);                 /* usable by this process */
void kac_cpu_name(char *out, size_t n);    /* "unknown" when the system does not say */

/* ---- CRC-32 (PNG's) and SHA-256 ---- */
uint32_t kac_crc32(const void *data, size_t n, uint32_t seed); /* seed 0 to start; the result continues */
kac_status kac_sha256_file(char hex[65], const char *path);
void kac_sha256(char hex[65], const void *data, size_t n);

#endif
