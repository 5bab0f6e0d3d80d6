/* The picture (and mask) that a run starts from: --init-img, --strength, --mask. */
#ifndef KAC_START_IMAGE_H
#define KAC_START_IMAGE_H

#include "base/json.h"
#include "run/latent_process.h"
#include <kac/options.h>

typedef struct kac_start_image {
    uint8_t *rgb;                 /* [height, width, 3] of the run's size; NULL: the run starts from noise */
    uint8_t *mask;                /* [height, width], 1: repaint; NULL: no mask */
    const char *path, *mask_path; /* of the options */
    char sha256[65], mask_sha256[65];
    int width, height; /* of the file */
    double strength;
    char note[256]; /* a remark for the user: resized or cropped; "" when there is none */
} kac_start_image;

/* Reads the files, brings them to o's width and height (resized so as to cover it, by Lanczos, then cropped to the middle; the mask the
 * same way, grey ≥ 128 is repainted) and sets o->start; nothing without --init-img. KAC_E_USAGE: options that do not go together, a mask of
 * another size; KAC_E_IO, KAC_E_FORMAT, KAC_E_UNSUPPORTED: the files. Close it after the process that o opens. */
kac_status kac_start_image_open(kac_start_image *s, kac_latent_options *o, const kac_options *options);
void kac_start_image_close(kac_start_image *s);

/* The first of n_steps steps to take: n_steps − floor(n_steps · strength), the rule of diffusers' pipelines; 0 without --init-img.
 * KAC_E_USAGE when no step is left. */
kac_status kac_start_image_begin(int *begin, const kac_options *options, int n_steps);

/* The share of the noise that the picture gets; 0 without --init-img. */
double kac_start_image_strength(const kac_options *options);

/* What run.json says of it; NULL without a picture. */
cJSON *kac_start_image_facts(const kac_start_image *s, bool network_reads_mask);

#endif
