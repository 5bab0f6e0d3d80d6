/* BERT's encoder (Devlin et al. 2019), with cross-attention to a picture's tokens where the file has it (BLIP's text encoder, Li et al.
 * 2022). */
#ifndef KAC_BERT_H
#define KAC_BERT_H

#include "base/json.h"
#include "nn/layers.h"

typedef struct kac_bert_config {
    int64_t width, inner, layers, heads, vocab_size, max_tokens;
    int64_t encoder_width; /* of the tokens that cross-attention sees; 0: none */
    kac_act act;
    double eps;
} kac_bert_config;

typedef struct kac_bert kac_bert;

/* Sizes read from the shapes of the tensors; heads is width / 64 (0 when that is no whole number), eps 1e-12, act GELU. KAC_E_FORMAT
 * when no such network is there. */
kac_status kac_bert_config_infer(kac_bert_config *cfg, const kac_weights *w, const char *prefix);
/* What a config file says beyond the shapes: num_attention_heads, layer_norm_eps, hidden_act. */
kac_status kac_bert_config_read(kac_bert_config *cfg, const kac_json *j, const cJSON *obj);

/* prefix such as "text_encoder.". Token types, where the file has them, are those of a first sentence. */
kac_status kac_bert_load(kac_bert **out, const kac_loader *l, const char *prefix, const kac_bert_config *cfg);
void kac_bert_free(kac_bert *m); /* NULL allowed */
const kac_bert_config *kac_bert_config_of(const kac_bert *m);

/* out [N, T, D] of c->dtype in c->scratch: the last layer's states. ids [N, T] on the host, without padding; encoder [N, S,
 * encoder_width] of c->dtype, or none for a network without cross-attention. KAC_E_SHAPE for an id outside the vocabulary, T too long. */
kac_status kac_bert_run(kac_tensor *out, const kac_bert *m, kac_ctx *c, const int32_t *ids, int64_t n, int64_t n_tokens,
                        kac_tensor encoder);

#endif
