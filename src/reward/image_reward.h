/* Rewards of pictures: what `generate` steers by and `score` ranks by.
 *
 *     kac_image_reward *r;
 *     KAC_TRY(kac_image_reward_open(&r, c, "clip=weights/shapes-clip:2"));   // reward_spec.h
 *     KAC_TRY(kac_image_reward_prepare(r, prompts, n_prompts));              // prompts are encoded once
 *     KAC_TRY(kac_image_reward_score(r, pictures, n, values));
 *
 *     clip=DIR           cosine of a CLIP folder's image and text embeddings
 *     clip-logit=DIR     the same times the model's logit scale: log-odds between prompts
 *     clipscore=DIR      2.5 max(cosine, 0) (Hessel et al. 2021)
 *     pickscore=DIR      logit scale times cosine of the PickScore folder (Kirstain et al. 2023)
 *     hpsv2=FILE         cosine of HPS_v2_compressed.pt or HPS_v2.1_compressed.pt (clip_reward.h)
 *     aesthetic=DIR+HEAD LAION's aesthetic predictors on a CLIP ViT-L/14 (aesthetic_reward.h)
 *     image-reward=PATH  ImageReward (blip_reward.h)
 *     mps=DIR            multi-dimensional preference score (mps_reward.h)
 *     classifier=DIR:LABEL  log-probability of a label (classifier_reward.h)
 *     incompressibility  size in kB of the picture as a JPEG of quality 95 (also: jpeg); compressibility: minus that (jpeg_reward.h)
 *     brightness=T       −|mean luma − T|; color=#RRGGBB: −mean squared distance (color_reward.h)
 *     shapes-judge       1 when a picture of coloured shapes shows exactly what its prompt says, else 0 (judge.h)
 *     shapes-share       the share of what the prompt says that holds; shapes-count, shapes-relation: of these alone
 *     plugin=FILE.so     from a shared library (kac/reward_plugin.h)
 *     command=PROGRAM    from any program that speaks JSON lines (outside_reward.h)
 */
#ifndef KAC_IMAGE_REWARD_H
#define KAC_IMAGE_REWARD_H

#include "reward/reward_spec.h"
#include "tensor/ops.h"

/* For --help; error messages list the table in image_reward.c. */
#define KAC_REWARD_NAMES                                                                                               \
    "clip, clip-logit, clipscore, pickscore, hpsv2, aesthetic, image-reward, mps, classifier, incompressibility, "     \
    "compressibility, brightness, color, shapes-judge, shapes-share, shapes-count, shapes-relation, "                  \
    "plugin=FILE.so, command=PROGRAM"

typedef struct kac_picture {
    const uint8_t *rgb; /* [height, width, 3] */
    int width, height;
    int prompt; /* index into the prompts of prepare */
} kac_picture;

enum { KAC_REWARD_BATCH = 16 };

typedef struct kac_image_reward kac_image_reward;
struct kac_image_reward {
    kac_reward_spec spec; /* weight and shapings are the caller's to apply (mix.h) */
    const char *name;     /* "clip=weights/shapes-clip" */
    double weight;        /* of the spec */
    int batch;            /* pictures in one call of score; 0: KAC_REWARD_BATCH, which is the most */
    double timeout_ms;    /* of outside programs, for each batch; 0: none */
    bool lost;            /* an outside scorer that failed: every further call fails too */
    void *self;
    kac_ctx *c;
    const char *const *prompts; /* of prepare; borrowed */
    int n_prompts;
    bool needs_prompt;
    kac_status (*prepare)(kac_image_reward *r);
    kac_status (*score)(kac_image_reward *r, const kac_picture *pictures, int n, double *out);
    /* The value of float pictures and its derivative: images [n, height, width, 3] f32 in 0 … 1; prompt [n]; d_images, of that shape, is
     * written: d out[i] / d images[i]. Values differ from those of score by what rounding to 8 bits does. NULL: no gradient. */
    kac_status (*grad)(kac_image_reward *r, kac_tensor images, const int *prompt, double *out, kac_tensor d_images);
    void (*close)(kac_image_reward *r);
};

/* "clip" and its kin without a folder mean the shipped judge: "clip:2" becomes "clip=WEIGHTS/shapes-clip:2". compressibility and its kin get the
 * shipped network that gives them a gradient, where it is installed. Any other text is copied.
 * Caller frees; NULL when out of memory. */
char *kac_image_reward_expand(const char *spec, const char *weights_dir);

/* Weights of networks go to c->model. KAC_E_USAGE for an unknown name (with the nearest) or a bad weight. */
kac_status kac_image_reward_open(kac_image_reward **out, kac_ctx *c, const char *spec);
void kac_image_reward_close(kac_image_reward *r); /* NULL allowed */

/* Once, before scoring; text embeddings go to c->run. The list must stay valid. */
kac_status kac_image_reward_prepare(kac_image_reward *r, const char *const *prompts, int n_prompts);

/* The same over all n pictures in batches; KAC_E_UNSUPPORTED for a reward without a gradient, naming those that have one. */
kac_status kac_image_reward_grad(kac_image_reward *r, kac_tensor images, const int *prompt, double *out,
                                 kac_tensor d_images);

/* out[i]: the unweighted reward. In batches. In a plan run nothing is read and out is 0. */
kac_status kac_image_reward_score(kac_image_reward *r, const kac_picture *pictures, int n, double *out);

#endif
