#include "run/lora_mix.h"
#include "base/json.h"
#include "io/lora_names.h"
#include "io/safetensors.h"
#include <math.h>
#include <string.h>

/* What the files have for one layer. */
typedef struct mixed {
    const kac_lora_module *of[KAC_LORA_MIX_MAX]; /* NULL: this file leaves the layer as it is */
    const kac_lora_module *first;
    int64_t rank;
} mixed;

typedef struct mixer {
    const kac_lora_mix_args *a;
    kac_lora files[KAC_LORA_MIX_MAX];
    int n_open;
    bool two_texts;
    kac_st_item *items; /* names and data on the heap */
    int n;
    kac_lora_mix_result *result;
} mixer;

static kac_status open_files(mixer *m) {
    enum { SGM_LAYERS = 2 }; /* of every model whose LoRA files use the original names */
    for (int i = 0; i < m->a->n; i++) {
        kac_lora *l = &m->files[i];
        KAC_TRY(kac_lora_open(l, m->a->files[i]));
        m->n_open++;
        if (l->n_unknown > 0)
            return KAC_FAIL(KAC_E_FORMAT, "%s: %d of its keys belong to no UNet or CLIP text encoder (first: %.100s)",
                            l->path, l->n_unknown, l->unknown[0]);
        kac_lora_resolve_sgm(l, SGM_LAYERS);
        for (int k = 0; k < l->n_modules; k++) m->two_texts |= l->modules[k].part == KAC_LORA_TEXT_2;
    }
    return KAC_OK;
}

/* Fills what the files have for the layer of files[i].modules[k]; *known: an earlier file has it too. */
static kac_status gather(mixed *x, bool *known, const mixer *m, int i, int k) {
    const kac_lora_module *first = &m->files[i].modules[k];
    *x = (mixed){.first = first};
    *known = false;
    for (int f = 0; f < m->n_open; f++) {
        const kac_lora_module *o = kac_lora_find(&m->files[f], first->part, first->flat);
        if (o == NULL) continue;
        *known |= f < i;
        x->of[f] = o;
        x->rank = m->a->factors ? o->rank : x->rank + o->rank;
        if (o->n_in != first->n_in || o->n_out != first->n_out || o->kh != first->kh || o->kw != first->kw)
            return KAC_FAIL(KAC_E_SHAPE,
                            "%s and %s are for different models: %s maps %lld to %lld numbers in one, %lld to %lld in "
                            "the other",
                            m->files[i].path, m->files[f].path, first->path, (long long)first->n_in,
                            (long long)first->n_out, (long long)o->n_in, (long long)o->n_out);
        if (m->a->factors && (o->rank != first->rank || fabs(o->scale - first->scale) > 1e-6 * fabs(first->scale)))
            return KAC_FAIL(KAC_E_USAGE,
                            "%s has rank %lld and scale %g in %s, %lld and %g in %s: factors cannot be averaged; "
                            "--mix-by change can",
                            first->path, (long long)first->rank, first->scale, m->files[i].path, (long long)o->rank,
                            o->scale, m->files[f].path);
    }
    return KAC_OK;
}

/* A zeroed f32 tensor under the format's name, taken over by the mixer. */
static kac_status add_item(mixer *m, const kac_lora_module *of, kac_lora_slot slot, int rank, const int64_t *shape,
                           float **out) {
    char name[KAC_LORA_MAX_NAME];
    KAC_TRY(kac_lora_key_write(name, m->a->format, of->part, of->path, slot, m->two_texts));
    kac_st_item *item = &m->items[m->n];
    *item = (kac_st_item){.name = kac_strdup(name), .tensor = kac_tensor_of(NULL, KAC_F32, rank, shape)};
    item->tensor.data = *out = kac_alloc(kac_tensor_bytes(item->tensor));
    m->n++;
    return item->name == NULL || *out == NULL ? KAC_E_MEMORY : KAC_OK;
}

/* down [R, n_in · kh · kw] and up [n_out, R] of the mixture; `scale`: factor of the whole product that goes into up. */
static kac_status fill(float *down, float *up, const mixer *m, const mixed *x, double scale) {
    const int64_t n_row = x->first->n_in * x->first->kh * x->first->kw, n_out = x->first->n_out;
    int64_t at = 0;
    for (int f = 0; f < m->n_open; f++) {
        const kac_lora_module *o = x->of[f];
        if (o == NULL) continue;
        const double w = m->a->weights[f], down_w = m->a->factors ? w : 1, up_w = m->a->factors ? w : w * o->scale;
        double *values = kac_alloc((size_t)(o->rank * KAC_MAX(n_row, n_out)) * sizeof *values);
        if (values == NULL) return KAC_E_MEMORY;
        kac_lora_down_values(values, o);
        for (int64_t i = 0; i < o->rank * n_row; i++) down[at * n_row + i] += (float)(down_w * values[i]);
        kac_lora_up_values(values, o);
        for (int64_t i = 0; i < n_out; i++)
            for (int64_t r = 0; r < o->rank; r++)
                up[i * x->rank + at + r] += (float)(scale * up_w * values[i * o->rank + r]);
        kac_free(values);
        if (!m->a->factors) at += o->rank;
    }
    return KAC_OK;
}

static kac_status add_layer(mixer *m, const mixed *x) {
    const kac_lora_module *l = x->first;
    if (l->sgm)
        return KAC_FAIL(KAC_E_UNSUPPORTED, "%s is a name of the original code that diffusers has no other for",
                        l->path);
    const bool conv = l->down.rank == 4, has_alpha = m->a->format == KAC_LORA_KOHYA;
    const int64_t down_shape[] = {x->rank, l->n_in, l->kh, l->kw}, up_shape[] = {l->n_out, x->rank, 1, 1};
    float *down, *up, *alpha;
    KAC_TRY(add_item(m, l, KAC_LORA_DOWN, conv ? 4 : 2, down_shape, &down));
    KAC_TRY(add_item(m, l, KAC_LORA_UP, conv ? 4 : 2, up_shape, &up));
    const double own = m->a->factors ? l->scale : 1; /* what a reader multiplies by */
    KAC_TRY(fill(down, up, m, x, has_alpha ? 1 : own));
    if (has_alpha) {
        KAC_TRY(add_item(m, l, KAC_LORA_ALPHA, 0, NULL, &alpha));
        *alpha = (float)(own * (double)x->rank);
    }
    int n_files = 0;
    for (int f = 0; f < m->n_open; f++) n_files += x->of[f] != NULL;
    kac_lora_mix_result *r = m->result;
    r->n_modules++, r->n_shared += n_files > 1;
    r->rank_min = r->n_modules == 1 ? x->rank : KAC_MIN(r->rank_min, x->rank);
    r->rank_max = KAC_MAX(r->rank_max, x->rank);
    return KAC_OK;
}

/* What was mixed, as JSON for the metadata; caller frees. */
static char *describe(const mixer *m) {
    cJSON *d = cJSON_CreateObject(), *files = cJSON_AddArrayToObject(d, "files");
    cJSON_AddStringToObject(d, "by", m->a->factors ? "factors" : "change");
    for (int f = 0; f < m->n_open; f++) {
        cJSON *row = cJSON_CreateObject();
        cJSON_AddStringToObject(row, "path", m->files[f].path);
        cJSON_AddNumberToObject(row, "weight", m->a->weights[f]);
        cJSON_AddItemToArray(files, row);
    }
    char *text = cJSON_PrintUnformatted(d), *copy = text == NULL ? NULL : kac_strdup(text);
    cJSON_free(text), cJSON_Delete(d);
    return copy;
}

static kac_status mix(mixer *m) {
    KAC_TRY(open_files(m));
    int n_most = 0;
    for (int f = 0; f < m->n_open; f++) n_most += m->files[f].n_modules;
    m->items = kac_alloc((size_t)n_most * KAC_LORA_N_SLOTS * sizeof *m->items);
    if (m->items == NULL) return KAC_E_MEMORY;
    for (int f = 0; f < m->n_open; f++)
        for (int k = 0; k < m->files[f].n_modules; k++) {
            mixed x;
            bool known;
            KAC_TRY(gather(&x, &known, m, f, k));
            if (!known) KAC_TRY(add_layer(m, &x));
        }
    char *what = describe(m);
    if (what == NULL) return KAC_E_MEMORY;
    const kac_st_pair pairs[] = {{"format", "pt"}, {"kac_mix", what}, {"ss_network_module", "networks.lora"}};
    const kac_status s = kac_st_write(m->a->out, m->items, m->n, pairs, m->a->format == KAC_LORA_KOHYA ? 3 : 2);
    kac_free(what);
    return s;
}

kac_status kac_lora_mix(kac_lora_mix_result *r, const kac_lora_mix_args *a) {
    *r = (kac_lora_mix_result){0};
    KAC_ASSERT(a->n >= 1 && a->n <= KAC_LORA_MIX_MAX);
    mixer *m = kac_alloc(sizeof *m);
    if (m == NULL) return KAC_E_MEMORY;
    m->a = a, m->result = r;
    const kac_status s = mix(m);
    for (int i = 0; i < m->n; i++) {
        kac_free((char *)(uintptr_t)m->items[i].name);
        kac_free(m->items[i].tensor.data);
    }
    for (int f = 0; f < m->n_open; f++) kac_lora_close(&m->files[f]);
    kac_free(m->items), kac_free(m);
    return s;
}
