/* transformers ViTForImageClassification. */
#ifndef KAC_VIT_CLASSIFIER_H
#define KAC_VIT_CLASSIFIER_H

#include "model/source.h"
#include "model/vit.h"

typedef struct kac_vit_classifier {
    kac_vit vit;
    kac_nn_linear classifier;
    int64_t n_out;
} kac_vit_classifier;

kac_status kac_vit_classifier_load(kac_vit_classifier *m, kac_ctx *c, const kac_source *source);
void kac_vit_classifier_free(kac_vit_classifier *m);

/* out [N, n_out] f32 in c->scratch: logits. */
kac_status kac_vit_classifier_run(kac_tensor *out, const kac_vit_classifier *m, kac_ctx *c, kac_tensor pixels);

#endif
