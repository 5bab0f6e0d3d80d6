#include "io/lora_write.h"
#include "io/lora_names.h"
#include "tensor/convert.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct writer {
    const kac_lora_write_args *a;
    const kac_lora_module *modules;
    int n_modules;
    bool two_texts;
    kac_st_item *items; /* names and data on the heap */
    int n;
} writer;

/* A tensor of the given shape under the format's name for it, taken over by the writer; data zeroed. */
static kac_status add_item(writer *w, const kac_lora_module *m, kac_lora_slot slot, kac_dtype dtype, int rank,
                           const int64_t *shape, kac_tensor *out) {
    char name[KAC_LORA_MAX_NAME];
    KAC_TRY(kac_lora_key_write(name, w->a->format, m->part, m->path, slot, w->two_texts));
    kac_st_item *item = &w->items[w->n];
    *item = (kac_st_item){.name = kac_strdup(name), .tensor = kac_tensor_of(NULL, dtype, rank, shape)};
    item->tensor.data = kac_alloc(kac_tensor_bytes(item->tensor));
    w->n++;
    if (item->name == NULL || item->tensor.data == NULL) return KAC_E_MEMORY;
    *out = item->tensor;
    return KAC_OK;
}

static kac_dtype dtype_of(const writer *w, kac_tensor t) {
    if (w->a->dtype >= 0) return (kac_dtype)w->a->dtype;
    return t.dtype == KAC_F64 ? KAC_F32 : t.dtype;
}

/* The tensor as it is, every entry times `scale`. */
static kac_status add_scaled(writer *w, const kac_lora_module *m, kac_lora_slot slot, kac_tensor t, double scale) {
    kac_tensor out;
    KAC_TRY(add_item(w, m, slot, dtype_of(w, t), t.rank, t.shape, &out));
    for (int64_t i = 0; i < kac_tensor_count(t); i++) {
        const double x = scale * kac_element_load(t.data, t.dtype, i);
        kac_element_store(out.data, out.dtype, i, x);
        if (isfinite(x) && !isfinite(kac_element_load(out.data, out.dtype, i)))
            return KAC_FAIL(KAC_E_NONFINITE, "%s: %s does not fit into %s; choose another dtype", w->a->from, m->path,
                            kac_dtype_name(out.dtype));
    }
    return KAC_OK;
}

/* down with the Tucker core multiplied in: [r, n_in, kh, kw]. */
static kac_status add_whole_down(writer *w, const kac_lora_module *m) {
    kac_tensor out;
    const int64_t shape[] = {m->rank, m->n_in, m->kh, m->kw};
    KAC_TRY(add_item(w, m, KAC_LORA_DOWN, dtype_of(w, m->down), 4, shape, &out));
    double *values = kac_alloc((size_t)kac_tensor_count(out) * sizeof *values);
    if (values == NULL) return KAC_E_MEMORY;
    kac_lora_down_values(values, m);
    for (int64_t i = 0; i < kac_tensor_count(out); i++) kac_element_store(out.data, out.dtype, i, values[i]);
    kac_free(values);
    return KAC_OK;
}

static kac_status add_module(writer *w, const kac_lora_module *m) {
    if (m->sgm)
        return KAC_FAIL(KAC_E_UNSUPPORTED, "%s: %s is a name of the original code that diffusers has no other for",
                        w->a->from, m->path);
    if (w->a->format != KAC_LORA_KOHYA) {
        KAC_TRY(m->mid.data != NULL ? add_whole_down(w, m) : add_scaled(w, m, KAC_LORA_DOWN, m->down, 1));
        return add_scaled(w, m, KAC_LORA_UP, m->up, m->scale);
    }
    kac_tensor alpha;
    KAC_TRY(add_scaled(w, m, KAC_LORA_DOWN, m->down, 1));
    KAC_TRY(add_scaled(w, m, KAC_LORA_UP, m->up, 1));
    if (m->mid.data != NULL) KAC_TRY(add_scaled(w, m, KAC_LORA_MID, m->mid, 1));
    KAC_TRY(add_item(w, m, KAC_LORA_ALPHA, KAC_F32, 0, NULL, &alpha));
    kac_element_store(alpha.data, KAC_F32, 0, m->scale * (double)m->rank);
    return KAC_OK;
}

/* What kohya's tools and many others show of a file. */
static kac_status write_file(const writer *w) {
    char rank[24] = "Dynamic", alpha[32] = "Dynamic";
    const kac_lora_module *first = &w->modules[0];
    bool same_rank = true, same_alpha = true;
    for (int i = 0; i < w->n_modules; i++) {
        const kac_lora_module *m = &w->modules[i];
        same_rank &= m->rank == first->rank;
        same_alpha &= m->scale * (double)m->rank == first->scale * (double)first->rank;
    }
    if (same_rank) snprintf(rank, sizeof rank, "%lld", (long long)first->rank);
    if (same_alpha) snprintf(alpha, sizeof alpha, "%g", first->scale * (double)first->rank);
    const kac_st_pair own[] = {{"format", "pt"},
                               {"ss_network_module", "networks.lora"},
                               {"ss_network_dim", rank},
                               {"ss_network_alpha", alpha}};
    const int n_own = w->a->format == KAC_LORA_KOHYA ? KAC_COUNT_OF(own) : 1;
    kac_st_pair *pairs = kac_alloc((size_t)(n_own + w->a->n_meta) * sizeof *pairs);
    if (pairs == NULL) return KAC_E_MEMORY;
    memcpy(pairs, own, (size_t)n_own * sizeof *pairs);
    if (w->a->n_meta > 0) memcpy(pairs + n_own, w->a->meta, (size_t)w->a->n_meta * sizeof *pairs);
    const kac_status s = kac_st_write(w->a->to, w->items, w->n, pairs, n_own + w->a->n_meta);
    kac_free(pairs);
    return s;
}

static kac_status write_all(writer *w, kac_lora_written *r) {
    w->items = kac_alloc((size_t)w->n_modules * KAC_LORA_N_SLOTS * sizeof *w->items);
    if (w->items == NULL) return KAC_E_MEMORY;
    for (int i = 0; i < w->n_modules; i++) w->two_texts |= w->modules[i].part == KAC_LORA_TEXT_2;
    for (int i = 0; i < w->n_modules; i++) KAC_TRY(add_module(w, &w->modules[i]));
    KAC_TRY(write_file(w));
    *r = (kac_lora_written){.n_modules = w->n_modules, .n_tensors = w->n};
    for (int i = 0; i < w->n; i++) r->n_bytes += kac_tensor_bytes(w->items[i].tensor);
    return KAC_OK;
}

kac_status kac_lora_write(kac_lora_written *r, const kac_lora_module *modules, int n, const kac_lora_write_args *a) {
    writer w = {.a = a, .modules = modules, .n_modules = n};
    KAC_ASSERT(n > 0);
    const kac_status s = write_all(&w, r);
    for (int i = 0; i < w.n; i++) {
        kac_free((char *)(uintptr_t)w.items[i].name);
        kac_free(w.items[i].tensor.data);
    }
    kac_free(w.items);
    return s;
}
