/* Between the judge's parts: a blob's moments, and its patch for comparing with templates. */
#ifndef KAC_JUDGE_PATCH_H
#define KAC_JUDGE_PATCH_H

typedef struct kac_moments {
    float mass, x, y, r; /* sum of alpha, centre, rms radius (at least 0.5), in pixels */
} kac_moments;

/* alpha [64, 64]. */
kac_moments kac_patch_moments(const float *alpha);

/* out [24, 24]: alpha resampled (bilinear, 0 outside) so that the centre is central and the rms radius fixed. */
void kac_patch_crop(float *out, const float *alpha, kac_moments m);

#endif
