/* What the files of the latent process share: latent_process.c (the chain), latent_pictures.c (its pictures). */
#ifndef KAC_LATENT_PARTS_H
#define KAC_LATENT_PARTS_H

#include "run/latent_process.h"

struct kac_latent {
    kac_process process;
    kac_ctx *c;
    const kac_pipeline *pipeline;
    const kac_solver *solver;
    kac_latent_options o;
    int n_slots;
    int64_t h, w, channels;
    kac_unet_cond *cond;
    int *cond_row, *uncond_row; /* [n_groups] */
    int n_truncated;
    kac_tensor x, out, x0, prev; /* [n_slots, h, w, channels] f32; prev only with history */
    uint64_t *id;                /* [n_slots] which state a slot holds */
    uint64_t *predicted;         /* [n_slots] id whose out and x0 the slot has; 0: none */
    uint64_t *picture_id;        /* [n_slots] id of the decoded picture; 0: none */
    uint8_t *picture_stage;      /* [n_slots] kac_stage of the picture */
    uint8_t *pictures;           /* [n_slots, height, width, 3] */
    uint64_t next_id;
    int i_step;        /* of the last predict */
    int *list, *list2; /* [n_slots] work lists */
    double *timesteps; /* [2 · batch] of a network call */
    int *text_row;     /* [2 · batch] */
    kac_latent_counts counts;
};

static inline bool kac_latent_is_plan(const kac_latent *l) {
    return l->c->model.counting;
}

static inline int64_t kac_latent_state_count(const kac_latent *l) {
    return l->h * l->w * l->channels;
}

static inline kac_tensor kac_latent_row(kac_tensor t, int slot) {
    return kac_tensor_slice(t, 0, slot, 1);
}

static inline size_t kac_latent_picture_bytes(const kac_latent *l) {
    return (size_t)(l->o.width * l->o.height * 3);
}

/* The slot of `list` that holds state `id`; −1: none. Lists are short next to a network call. */
static inline int kac_latent_find_state(const kac_latent *l, const int *list, int n, uint64_t id) {
    for (int i = 0; i < n; i++)
        if (l->id[list[i]] == id) return list[i];
    return -1;
}

#endif
