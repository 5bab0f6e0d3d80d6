#include "reward/jpeg_reward.h"
#include "io/image.h"

static kac_status size_score(kac_image_reward *r, const kac_picture *pictures, int n, double *out, double sign) {
    for (int i = 0; i < n; i++) {
        size_t bytes = 0;
        if (!r->c->model.counting)
            KAC_TRY(kac_jpeg_size(&bytes, pictures[i].rgb, pictures[i].width, pictures[i].height, 95));
        out[i] = sign * (double)bytes / 1000;
    }
    return KAC_OK;
}

static kac_status large_score(kac_image_reward *r, const kac_picture *pictures, int n, double *out) {
    return size_score(r, pictures, n, out, 1);
}

static kac_status small_score(kac_image_reward *r, const kac_picture *pictures, int n, double *out) {
    return size_score(r, pictures, n, out, -1);
}

kac_status kac_incompressibility_reward_open(kac_image_reward *r, const char *path) {
    (void)path;
    r->score = large_score;
    return KAC_OK;
}

kac_status kac_compressibility_reward_open(kac_image_reward *r, const char *path) {
    (void)path;
    r->score = small_score;
    return KAC_OK;
}
