/* What rewards with networks share: where their files lie, and pictures as the network wants them. */
#ifndef KAC_REWARD_FILES_H
#define KAC_REWARD_FILES_H

#include "model/source.h"
#include "reward/image_reward.h"
#include "reward/preprocess.h"

/* A file of weights, or a folder that holds config.json with weights, or else exactly one file of weights. config.json (of the folder,
 * or beside the file) is optional: s->config.root is NULL without it. KAC_E_IO, KAC_E_FORMAT saying what was found. */
kac_status kac_reward_source_open(kac_source *s, const char *path);

/* The folder itself, or the file's. Caller frees; NULL when out of memory. */
char *kac_reward_folder(const char *path);

/* What weights are, told by the names of their tensors (and the config's keys). */
typedef enum kac_reward_content {
    KAC_CONTENT_OTHER,
    KAC_CONTENT_CLIP,         /* transformers CLIPModel */
    KAC_CONTENT_OPEN_CLIP,    /* open_clip, HPSv2 */
    KAC_CONTENT_IMAGE_REWARD, /* BLIP with ImageReward's head */
    KAC_CONTENT_HEAD,         /* linear layers on embeddings: aesthetic predictors */
    KAC_CONTENT_CLASSIFIER,   /* transformers ViTForImageClassification, or a network described in JSON */
    KAC_CONTENT_JPEG_SIZE,    /* weights/jpeg-size */
    KAC_CONTENT_MPS           /* CLIP with the cross-attention of the multi-dimensional preference score */
} kac_reward_content;
kac_reward_content kac_reward_content_of(const kac_source *s);
/* "a CLIP (rewards clip, clip-logit, clipscore, pickscore; with a head aesthetic)". */
const char *kac_reward_content_text(kac_reward_content content);
/* Fails with what the source is and what is wanted: one line. */
kac_status kac_reward_wrong_content(const kac_source *s, const char *wanted);

/* pixels [n, edge, edge, 3] f32 in scratch. In a plan run nothing is read. KAC_E_SHAPE when preprocessing gives another size. */
kac_status kac_reward_pixels(kac_tensor *pixels, kac_image_reward *r, const kac_preprocess *p, int64_t edge,
                             const kac_picture *pictures, int n);

#endif
