/* Where ops run: a backend's table, its arenas, and what is watched (counts, taps, tape). */
#ifndef KAC_CTX_H
#define KAC_CTX_H

#include "base/base.h"
#include <kac/rng.h>
#include <kac/tensor.h>

struct kac_ops;
struct kac_tape;

typedef struct kac_counts {
    int64_t ops;
    double flops; /* multiply-adds count 2 */
    double bytes; /* read + written once each */
} kac_counts;

typedef struct kac_ctx {
    const struct kac_ops *ops;
    void *backend;     /* the backend's own state, freed by its close */
    kac_arena model;   /* weights */
    kac_arena run;     /* states, conditioning, results */
    kac_arena scratch; /* mark/release around each block */
    kac_dtype dtype;   /* of activations and packed weights: KAC_F32 or KAC_BF16 (ref: KAC_F64 too) */
    int n_threads;
    kac_counts counts;
    /* Named intermediate results, for golden tests: called by kac_tap. NULL: off. */
    kac_status (*tap)(void *self, const char *name, kac_tensor value);
    void *tap_self;
    struct kac_tape *tape; /* NULL: not recording */
    bool keep_all; /* tapes opened from now on keep all results: segments are only their ops. More memory, one forward pass less */
    size_t gradients, gradients_peak; /* bytes of all tapes that are open now, and the most so far (tensor/tape.h) */
} kac_ctx;

typedef struct kac_ctx_sizes {
    size_t model, run, scratch; /* bytes; 0: a generous reservation (address space only) */
} kac_ctx_sizes;

/* ops: the backend's table (src/run/backend.c finds it by name). sizes NULL: generous reservations. n_threads 0: one
 * per usable CPU. */
kac_status kac_ctx_open(kac_ctx *c, const struct kac_ops *ops, kac_dtype dtype, int n_threads,
                        const kac_ctx_sizes *sizes);
void kac_ctx_close(kac_ctx *c);

/* A tensor of the given shape from an arena of the context; data NULL never occurs on KAC_OK. */
kac_status kac_take(kac_tensor *out, kac_arena *arena, kac_dtype dtype, int rank, const int64_t *shape);
#define kac_take_make(out, arena, dtype, ...)                                                                          \
    kac_take((out), (arena), (dtype), (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)),                       \
             (int64_t[]){__VA_ARGS__})

/* Reports a named intermediate result when a tap is set. */
kac_status kac_tap(kac_ctx *c, kac_tensor value, const char *format, ...) __attribute__((format(printf, 3, 4)));

#endif
