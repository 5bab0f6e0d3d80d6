/* What the files of the latent process share: latent_process.c (the chain), latent_text.c (its prompts), latent_start.c
 * (where it begins and what a mask keeps), latent_pictures.c (its pictures), latent_guidance.c (gradients
 * and shifted steps), latent_search.c (other noise, states put by, states from outside; saving). */
#ifndef KAC_LATENT_PARTS_H
#define KAC_LATENT_PARTS_H

#include "run/latent_process.h"
#include "tensor/tape.h"

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
    kac_tensor x, out, x0;            /* [n_slots, h, w, channels] f32 */
    kac_tensor past[KAC_SOLVER_PAST]; /* the same, solver->n_past of them */
    kac_tensor variance;              /* the same: what the network says of its noise; with solver->learned only */
    uint64_t *id;                     /* [n_slots] which state a slot holds */
    uint64_t *key;                    /* [n_slots] the particle whose noise the slot draws */
    uint64_t *origin;                 /* [n_slots] the particle whose first noise the state descends from */
    uint64_t *predicted;              /* [n_slots] id whose out and x0 the slot has; 0: none */
    int *predicted_at;                /* [n_slots] at which step */
    uint64_t *picture_id;             /* [n_slots] id of the decoded picture; 0: none */
    uint8_t *picture_stage;           /* [n_slots] kac_stage of the picture */
    uint8_t *pictures;                /* [n_slots, height, width, 3] */
    uint64_t next_id;
    /* Of a first picture, latent_start.c: */
    kac_tensor init_mean, init_std; /* [1, h, w, channels] f32 before scaling; init_std only when it is drawn from */
    kac_tensor mask, keep, zero; /* [h · w · channels] f32: 1 where repainted, 1 − mask, 0; none: nothing is kept */
    kac_tensor extra; /* [1, h, w, channels + 1] f32: what an inpainting network reads too; none for others */
    /* With o.guided, latent_guidance.c: */
    kac_grad_tape tape;
    kac_tensor shift; /* as x: of the next step */
    bool *shifted;    /* [n_slots] */
    double *ratio;    /* [n_slots] log p − log q of the step just drawn; NAN: it has no density */
    /* Search, latent_search.c: */
    struct kac_latent_place *places; /* [most_places] */
    int64_t n_places, most_places;
    float *noise;      /* as x: of the next step, where `noised`; NULL before the first */
    bool *noised;      /* [n_slots] */
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

/* What the slot's next start or step uses instead of drawing; NULL: nothing. */
static inline float *kac_latent_given_noise(const kac_latent *l, int slot) {
    return l->noised != NULL && l->noised[slot] ? l->noise + slot * kac_latent_state_count(l) : NULL;
}

static inline kac_tensor kac_latent_row(kac_tensor t, int slot) {
    return kac_tensor_slice(t, 0, slot, 1);
}

static inline size_t kac_latent_picture_bytes(const kac_latent *l) {
    return (size_t)(l->o.width * l->o.height * 3);
}

/* Whether every state is evaluated twice, with the prompt and without. Distilled networks are told the guidance scale instead. */
static inline bool kac_latent_doubles(const kac_latent *l) {
    return l->o.cfg_scale > 1 && l->pipeline->n_texts > 0 && kac_unet_config_of(l->pipeline->unet)->time_cond_dim == 0;
}

/* round(255 (v/2 + 1/2)) clamped, as PIL-based pipelines do it; NaN becomes 0. */
void kac_latent_to_bytes(uint8_t *out, const float *image, size_t n);

/* Encodes the prompts and conditions the network on them: cond, cond_row, uncond_row. */
kac_status kac_latent_open_texts(kac_latent *l);

/* The slot of `list` that holds state `id`; −1: none. Lists are short next to a network call. */
static inline int kac_latent_find_state(const kac_latent *l, const int *list, int n, uint64_t id) {
    for (int i = 0; i < n; i++)
        if (l->id[list[i]] == id) return list[i];
    return -1;
}

/* Encodes o.start into c->run; does nothing without a picture. */
kac_status kac_latent_start_open(kac_latent *l);
/* x_K of a particle into x [1, h, w, channels]; given: normals [n_state] in place of its first noise, or NULL. What a mask keeps always
 * has the particle's. */
kac_status kac_latent_start_state(kac_latent *l, kac_tensor *x, const float *given, uint64_t particle);
/* After step i_step: what the mask keeps becomes the first picture at the noise level that x now has, under `particle`'s noise. Does
 * nothing without a mask, or when the network reads it. */
kac_status kac_latent_start_keep(kac_latent *l, kac_tensor *x, int i_step, uint64_t particle);

/* The network's input for `n` states, from c->scratch, with timesteps and text_row; n_rows is twice as many when all are evaluated
 * without the prompt too, and these come first. */
kac_status kac_latent_fill_rows(kac_latent *l, kac_tensor *in, int *n_rows, int i_step, const int *slots, int n);

/* Gives the process its search, and its saved form. */
void kac_latent_search_open(kac_latent *l);
void kac_latent_search_close(kac_latent *l);
/* x0-hat of a slot at a step, from its state and the network's output. clip_scratch: state_count floats with solver->threshold. */
kac_status kac_latent_denoised(kac_latent *l, int i_step, int slot, float *clip_scratch);

/* Gives the process its guidance, if that was asked for. */
kac_status kac_latent_guidance_open(kac_latent *l);
void kac_latent_guidance_close(kac_latent *l);
/* Whether slot's next step is shifted. */
static inline bool kac_latent_is_shifted(const kac_latent *l, int slot) {
    return l->shifted != NULL && l->shifted[slot];
}
/* next, drawn from slot `from` with noise z, moves by its shift; slot `to` gets the ratio of densities. */
void kac_latent_shift_state(kac_latent *l, kac_tensor next, int i_step, int from, int to, kac_tensor z);

#endif
