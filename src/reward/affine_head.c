#include "reward/affine_head.h"
#include "tensor/convert.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { MAX_LAYERS = 16 };

/* h := h ∘ (x ↦ W x + b): layers are taken from the last to the first. */
static kac_status prepend(kac_affine_head *h, const kac_weights *w, const char *stem) {
    char name[128];
    kac_tensor weight, bias;
    snprintf(name, sizeof name, "%sweight", stem);
    KAC_TRY(kac_weights_find(w, name, &weight));
    snprintf(name, sizeof name, "%sbias", stem);
    KAC_TRY(kac_weights_find(w, name, &bias));
    if (weight.rank != 2 || weight.shape[0] != h->n || kac_tensor_count(bias) != h->n || weight.shape[1] < 1)
        return KAC_FAIL(KAC_E_FORMAT, "%s: %sweight does not fit the layer behind it, which reads %lld numbers",
                        w->path, stem, (long long)h->n);
    const int64_t n_in = weight.shape[1];
    double *product = kac_alloc((size_t)n_in * sizeof *product);
    if (product == NULL) return KAC_E_MEMORY;
    for (int64_t o = 0; o < h->n; o++) {
        h->bias += h->w[o] * kac_element_load(bias.data, bias.dtype, o);
        for (int64_t i = 0; i < n_in; i++)
            product[i] += h->w[o] * kac_element_load(weight.data, weight.dtype, o * n_in + i);
    }
    kac_free(h->w);
    h->w = product, h->n = n_in;
    return KAC_OK;
}

static kac_status load(kac_affine_head *h, const kac_weights *w, const char *prefix) {
    char stems[MAX_LAYERS][64];
    int n_stems = 0;
    for (int i = -1; i < MAX_LAYERS; i++) {
        char stem[64], name[80];
        snprintf(stem, sizeof stem, i < 0 ? "%s" : "%s%d.", prefix, i);
        snprintf(name, sizeof name, "%sweight", stem);
        if (kac_weights_entry_of(w, name) != NULL) memcpy(stems[n_stems++], stem, sizeof stem);
        if (i < 0 && n_stems > 0) break;
    }
    if (n_stems == 0) return KAC_FAIL(KAC_E_FORMAT, "%s holds no head (%s0.weight)", w->path, prefix);
    h->n = 1;
    h->w = kac_alloc(sizeof *h->w);
    if (h->w == NULL) return KAC_E_MEMORY;
    h->w[0] = 1;
    while (n_stems > 0) KAC_TRY(prepend(h, w, stems[--n_stems]));
    bool finite = isfinite(h->bias);
    for (int64_t i = 0; i < h->n; i++) finite = finite && isfinite(h->w[i]);
    return finite ? KAC_OK : KAC_FAIL(KAC_E_NONFINITE, "%s: the head holds numbers that are not finite", w->path);
}

kac_status kac_affine_head_load(kac_affine_head *h, const kac_weights *w, const char *prefix) {
    *h = (kac_affine_head){0};
    const kac_status s = load(h, w, prefix);
    if (s != KAC_OK) kac_affine_head_free(h);
    return s;
}

void kac_affine_head_free(kac_affine_head *h) {
    kac_free(h->w);
    *h = (kac_affine_head){0};
}

double kac_affine_head_value(const kac_affine_head *h, const float *x) {
    double sum = h->bias;
    for (int64_t i = 0; i < h->n; i++) sum += h->w[i] * (double)x[i];
    return sum;
}
