/* Weights of one network: found by name, checked against the shape the config implies, packed into the model arena. */
#ifndef KAC_LOADER_H
#define KAC_LOADER_H

#include "io/lora.h"
#include "tensor/ops.h"

enum { KAC_PATH_MAX = 128 };

/* A module path such as "down_blocks.0.resnets.1", by value. */
typedef struct kac_path {
    char s[KAC_PATH_MAX];
} kac_path;
kac_path kac_path_of(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Where layers find their tensors; everything is borrowed. */
typedef struct kac_loader {
    kac_ctx *c;
    const kac_weights *weights;
    const char *path; /* for messages */
    struct kac_lora_set *lora; /* what is added to the layers (nn/lora.h); NULL: nothing */
    kac_lora_part lora_part;   /* which network this is for it */
    struct kac_parameters *parameters; /* where what can be tuned registers itself (nn/parameters.h); NULL: nowhere */
} kac_loader;

bool kac_loader_has(const kac_loader *l, const char *name);
/* The tensor as it lies in the file (host memory, its dtype), of exactly the wanted shape; [o, i] and [o, i, 1, 1]
 * stand for each other. KAC_E_FORMAT when missing, KAC_E_SHAPE naming found and wanted shape. */
kac_status kac_loader_get(const kac_loader *l, kac_tensor *t, const char *name, int rank, const int64_t *shape);

/* A table of f32 (`as` KAC_F32) or c->dtype numbers in the model arena. */
kac_status kac_loader_table(const kac_loader *l, kac_tensor *out, kac_dtype as, const char *name, int rank,
                            const int64_t *shape);
#define kac_loader_vector(l, out, name, n) kac_loader_table((l), (out), KAC_F32, (name), 1, (int64_t[]){(n)})

/* One number (shape [] or [1]) read on the host. */
kac_status kac_loader_number(const kac_loader *l, double *out, const char *name);

/* Constants of our own, n f32 numbers, into the model arena. */
kac_status kac_loader_constant(const kac_loader *l, kac_tensor *out, const float *values, int64_t n);

#endif
