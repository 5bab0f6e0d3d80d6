/* What parameters.c (registering, values, gradients) and parameters_file.c (files) share. */
#ifndef KAC_PARAMETERS_PARTS_H
#define KAC_PARAMETERS_PARTS_H

#include "nn/parameters.h"

/* One layer or tensor as files name it; of several that are packed as one, one. */
typedef struct kac_parameters_part {
    char *name;    /* LORA: the layer, FULL: the tensor */
    bool tuned;    /* false: matches no pattern, stays as it is */
    int file_rank; /* of the tensor in the checkpoint: 4 where it is a 1×1 kernel, though the layer is a product */
    int64_t at;    /* of its first value; LORA: down [rank, n_in, kh, kw], then up [n_out, rank] */
} kac_parameters_part;

/* What is packed as one. Sizes are those of one part. */
typedef struct kac_parameters_layer {
    kac_weight *w;               /* FULL; NULL: `table` */
    kac_nn_low *low;             /* LORA */
    kac_tensor table;            /* FULL */
    int64_t n_out, n_in, kh, kw; /* kh 0: a product */
    int stride;
    int rank; /* FULL: of the tensor, and its shape, n_out the first */
    int64_t shape[KAC_MAX_RANK];
    int n_parts;
    kac_parameters_part part[KAC_PARAMETERS_STACK];
    kac_tensor grad, grad_up; /* of all parts; LORA: of down and up */
} kac_parameters_layer;

typedef struct kac_parameters_pattern {
    char *text;
    int n_matched;
} kac_parameters_pattern;

struct kac_parameters {
    kac_parameters_spec spec;
    kac_parameters_pattern *pattern;
    int n_patterns;
    kac_parameters_layer *layer;
    int n_layers, cap_layers;
    char **seen; /* every layer that was loaded, for messages */
    int n_seen, cap_seen;
    int n_tuned;
    int64_t n_values, cap_values;
    float *start; /* [n_values] */
    kac_lora_part lora_part;
};

/* Numbers of a part's down factor, and of its up factor. */
static inline int64_t kac_parameters_n_down(const kac_parameters *p, const kac_parameters_layer *l) {
    return p->spec.rank * l->n_in * KAC_MAX(1, l->kh) * KAC_MAX(1, l->kw);
}
static inline int64_t kac_parameters_n_up(const kac_parameters *p, const kac_parameters_layer *l) {
    return p->spec.rank * l->n_out;
}

#endif
