#include "memory.h"
#include "base.h"
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static atomic_long fail_after;

void kac_alloc_fail_after(long n) {
    atomic_store(&fail_after, n);
}

static bool must_fail(void) {
    if (atomic_load(&fail_after) == 0) return false;
    if (atomic_load(&fail_after) == 1) return true;
    return atomic_fetch_sub(&fail_after, 1) == 1;
}

void *kac_alloc(size_t n_bytes) {
    void *p = must_fail() ? NULL : calloc(1, n_bytes == 0 ? 1 : n_bytes);
    if (p == NULL) (void)KAC_FAIL(KAC_E_MEMORY, "out of memory: %zu bytes could not be allocated", n_bytes);
    return p;
}

void *kac_realloc(void *p, size_t n_bytes) {
    void *q = must_fail() ? NULL : realloc(p, n_bytes == 0 ? 1 : n_bytes);
    if (q == NULL) (void)KAC_FAIL(KAC_E_MEMORY, "out of memory: %zu bytes could not be allocated", n_bytes);
    return q;
}

void kac_free(void *p) {
    free(p);
}

char *kac_strdup(const char *s) {
    const size_t n = strlen(s) + 1;
    char *copy = kac_alloc(n);
    if (copy != NULL) memcpy(copy, s, n);
    return copy;
}

char *kac_format(const char *format, ...) {
    va_list args;
    va_start(args, format);
    const int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    KAC_ASSERT(n >= 0);
    char *s = kac_alloc((size_t)n + 1);
    if (s == NULL) return NULL;
    va_start(args, format);
    vsnprintf(s, (size_t)n + 1, format, args);
    va_end(args);
    return s;
}

/* ---- arenas ---- */

enum { ALIGN = 64 };

kac_status kac_arena_init(kac_arena *a, const char *name, size_t cap) {
    *a = (kac_arena){.name = name, .cap = (cap + 4095) / 4096 * 4096};
    if (a->cap == 0) a->cap = 4096;
    void *p = mmap(NULL, a->cap, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) {
        *a = (kac_arena){.name = name};
        return KAC_FAIL(KAC_E_MEMORY, "cannot reserve %.1f MB for %s memory", (double)cap / 1e6, name);
    }
    a->base = p;
    return KAC_OK;
}

void kac_arena_init_counting(kac_arena *a, const char *name) {
    /* Never zero, so that data == NULL keeps meaning "no tensor"; never mapped; apart from each other, since a tape knows tensors by
     * where they lie. */
    static atomic_uint n_arenas;
    const uintptr_t base = ((uintptr_t)(atomic_fetch_add(&n_arenas, 1) % 7) << 60) + ((uintptr_t)1 << 56);
    *a = (kac_arena){.name = name, .base = (char *)base, .cap = SIZE_MAX >> 4, .counting = true};
}

void kac_arena_free(kac_arena *a) {
    if (a->base != NULL && !a->counting) munmap(a->base, a->cap);
    *a = (kac_arena){0};
}

void *kac_arena_take(kac_arena *a, size_t n_bytes) {
    if (n_bytes > a->cap || a->used > a->cap - n_bytes) {
        (void)KAC_FAIL(KAC_E_MEMORY, "%s memory is full: %.1f MB wanted, %.1f of %.1f MB used", a->name,
                       (double)n_bytes / 1e6, (double)a->used / 1e6, (double)a->cap / 1e6);
        return NULL;
    }
    char *p = a->base + a->used;
    const size_t rounded = n_bytes + (ALIGN - n_bytes % ALIGN) % ALIGN;
    a->used = rounded > a->cap - a->used ? a->cap : a->used + rounded;
    a->peak = KAC_MAX(a->peak, a->used);
    return p;
}

size_t kac_arena_mark(const kac_arena *a) {
    return a->used;
}

void kac_arena_release(kac_arena *a, size_t mark) {
    KAC_ASSERT(mark <= a->used);
    a->used = mark;
}

/* ---- growing text ---- */

static bool text_reserve(kac_text *t, size_t more) {
    if (t->failed) return false;
    if (t->n + more + 1 <= t->cap) return true;
    const size_t cap = KAC_MAX(t->cap * 2, t->n + more + 64);
    char *s = kac_realloc(t->s, cap);
    if (s == NULL) {
        t->failed = true;
        return false;
    }
    t->s = s, t->cap = cap;
    return true;
}

void kac_text_add_bytes(kac_text *t, const char *bytes, size_t n) {
    if (!text_reserve(t, n)) return;
    if (n > 0) memcpy(t->s + t->n, bytes, n);
    t->n += n;
    t->s[t->n] = '\0';
}

void kac_text_add(kac_text *t, const char *format, ...) {
    va_list args;
    va_start(args, format);
    const int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    KAC_ASSERT(n >= 0);
    if (!text_reserve(t, (size_t)n)) return;
    va_start(args, format);
    vsnprintf(t->s + t->n, (size_t)n + 1, format, args);
    va_end(args);
    t->n += (size_t)n;
}

void kac_text_free(kac_text *t) {
    kac_free(t->s);
    *t = (kac_text){0};
}
