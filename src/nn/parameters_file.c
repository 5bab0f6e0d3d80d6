/* Parameters as files: LoRA in the formats of io/lora_write.h, whole networks under the checkpoint's names. */
#include "io/lora_names.h"
#include "io/lora_write.h"
#include "nn/parameters_parts.h"
#include "tensor/convert.h"
#include <string.h>

/* The i-th tuned part and the layer that it is of. */
typedef struct place {
    const kac_parameters_layer *l;
    const kac_parameters_part *part;
} place;

static kac_status list_places(const kac_parameters *p, place **out) {
    int n = 0;
    place *list = *out = kac_alloc((size_t)KAC_MAX(1, p->n_tuned) * sizeof *list);
    if (list == NULL) return KAC_E_MEMORY;
    for (int i = 0; i < p->n_layers; i++)
        for (int k = 0; k < p->layer[i].n_parts; k++)
            if (p->layer[i].part[k].tuned) list[n++] = (place){&p->layer[i], &p->layer[i].part[k]};
    KAC_ASSERT(n == p->n_tuned);
    return KAC_OK;
}

static kac_tensor tensor_at(const float *values, int rank, const int64_t *shape) {
    return kac_tensor_of((void *)(uintptr_t)values, KAC_F32, rank, shape);
}

/* ---- metadata ---- */

static int count_meta(const char *const *meta) {
    int n = 0;
    while (meta != NULL && meta[2 * n] != NULL) n++;
    return n;
}

/* Room for one pair more than the caller's. */
static kac_status copy_meta(kac_st_pair **out, int *n, const char *const *meta) {
    *n = count_meta(meta);
    kac_st_pair *pairs = *out = kac_alloc((size_t)(*n + 1) * sizeof *pairs);
    if (pairs == NULL) return KAC_E_MEMORY;
    for (int i = 0; i < *n; i++) pairs[i] = (kac_st_pair){meta[2 * i], meta[2 * i + 1]};
    return KAC_OK;
}

/* What diffusers keeps of PEFT's configuration, as JSON; names of layers need no escapes. */
static char *adapter_text(const kac_parameters *p, const place *list) {
    const char *part = kac_lora_part_name(p->lora_part);
    kac_text t = {0};
    kac_text_add(&t, "{\"%s.r\": %d, \"%s.lora_alpha\": %d, \"%s.target_modules\": [", part, p->spec.rank, part,
                 p->spec.rank, part);
    for (int i = 0; i < p->n_tuned; i++) kac_text_add(&t, "%s\"%s\"", i == 0 ? "" : ", ", list[i].part->name);
    kac_text_add(&t, "]}");
    char *text = t.failed ? NULL : kac_strdup(t.s);
    kac_text_free(&t);
    return text;
}

/* ---- writing ---- */

static kac_lora_module module_of(const kac_parameters *p, const place *at, const float *values) {
    const kac_parameters_layer *l = at->l;
    const int64_t r = p->spec.rank, k = KAC_MAX(1, l->kh), down[] = {r, l->n_in, k, k}, up[] = {l->n_out, r, 1, 1};
    const int rank = at->part->file_rank == 4 ? 4 : 2;
    return (kac_lora_module){.path = at->part->name,
                             .part = p->lora_part,
                             .down = tensor_at(values + at->part->at, rank, down),
                             .up = tensor_at(values + at->part->at + kac_parameters_n_down(p, l), rank, up),
                             .rank = r,
                             .n_in = l->n_in,
                             .n_out = l->n_out,
                             .kh = (int)k,
                             .kw = (int)k,
                             .scale = p->spec.alpha / (double)r};
}

static kac_status write_lora(const kac_parameters *p, const place *list, const float *values, kac_lora_format format,
                             const char *path, kac_st_pair *pairs, int n_pairs) {
    kac_lora_written r;
    char *adapter = format == KAC_LORA_PEFT ? adapter_text(p, list) : NULL;
    kac_lora_module *modules = kac_alloc((size_t)KAC_MAX(1, p->n_tuned) * sizeof *modules);
    kac_status s = modules == NULL || (format == KAC_LORA_PEFT && adapter == NULL) ? KAC_E_MEMORY : KAC_OK;
    if (s == KAC_OK) {
        for (int i = 0; i < p->n_tuned; i++) modules[i] = module_of(p, &list[i], values);
        if (adapter != NULL) pairs[n_pairs++] = (kac_st_pair){"lora_adapter_metadata", adapter};
        s = kac_lora_write(&r, modules, p->n_tuned,
                           &(kac_lora_write_args){.from = "the tuned LoRA",
                                                  .to = path,
                                                  .format = format,
                                                  .dtype = KAC_F32,
                                                  .meta = pairs,
                                                  .n_meta = n_pairs});
    }
    kac_free(modules);
    kac_free(adapter);
    return s;
}

static kac_status write_whole(const kac_parameters *p, const place *list, const float *values, const char *path,
                              kac_st_pair *pairs, int n_pairs) {
    kac_st_item *items = kac_alloc((size_t)KAC_MAX(1, p->n_tuned) * sizeof *items);
    if (items == NULL) return KAC_E_MEMORY;
    for (int i = 0; i < p->n_tuned; i++) {
        const kac_parameters_layer *l = list[i].l;
        int64_t shape[KAC_MAX_RANK];
        memcpy(shape, l->shape, sizeof shape);
        if (l->rank == 2 && list[i].part->file_rank == 4) shape[2] = shape[3] = 1;
        items[i] = (kac_st_item){
            .name = list[i].part->name,
            .tensor = tensor_at(values + list[i].part->at, KAC_MAX(l->rank, list[i].part->file_rank), shape)};
    }
    pairs[n_pairs++] = (kac_st_pair){"format", "pt"};
    const kac_status s = kac_st_write(path, items, p->n_tuned, pairs, n_pairs);
    kac_free(items);
    return s;
}

kac_status kac_parameters_write(const kac_parameters *p, const float *values, kac_lora_format format, const char *path,
                                const char *const *meta) {
    place *list = NULL;
    kac_st_pair *pairs = NULL;
    int n_pairs = 0;
    kac_status s = list_places(p, &list);
    if (s == KAC_OK) s = copy_meta(&pairs, &n_pairs, meta);
    if (s == KAC_OK)
        s = p->spec.kind == KAC_PARAMETERS_FULL ? write_whole(p, list, values, path, pairs, n_pairs)
                                                : write_lora(p, list, values, format, path, pairs, n_pairs);
    kac_free(list);
    kac_free(pairs);
    return s;
}

/* ---- reading ---- */

/* Residual blocks in a down block, which names of the original code are told by. */
static int count_layers(const kac_parameters *p) {
    int n = 0;
    for (int i = 0; i < p->n_seen; i++) {
        const kac_path next = kac_path_of("down_blocks.0.resnets.%d.conv1", n);
        n += strcmp(p->seen[i], next.s) == 0;
    }
    return n;
}

static kac_status read_module(const kac_parameters *p, const place *at, float *values, const kac_lora *file) {
    const kac_parameters_layer *l = at->l;
    char flat[KAC_LORA_MAX_NAME];
    kac_lora_flatten(flat, at->part->name);
    const kac_lora_module *m = kac_lora_find(file, p->lora_part, flat);
    const int64_t k = KAC_MAX(1, l->kh), n_down = kac_parameters_n_down(p, l), n_up = kac_parameters_n_up(p, l);
    if (m == NULL)
        return KAC_FAIL(KAC_E_FORMAT, "%s has nothing for the layer %s; tune the layers that it has", file->path,
                        at->part->name);
    if (m->rank != p->spec.rank || m->n_in != l->n_in || m->n_out != l->n_out || m->kh != k || m->kw != k)
        return KAC_FAIL(KAC_E_SHAPE,
                        "%s: %s has rank %lld and maps %lld to %lld (kernel %dx%d), what is tuned has rank %d and maps "
                        "%lld to %lld (kernel %lldx%lld)",
                        file->path, m->path, (long long)m->rank, (long long)m->n_in, (long long)m->n_out, m->kh, m->kw,
                        p->spec.rank, (long long)l->n_in, (long long)l->n_out, (long long)k, (long long)k);
    double *numbers = kac_alloc((size_t)KAC_MAX(n_down, n_up) * sizeof *numbers);
    if (numbers == NULL) return KAC_E_MEMORY;
    const double scale = m->scale / (p->spec.alpha / p->spec.rank);
    float *to = values + at->part->at;
    kac_lora_down_values(numbers, m);
    for (int64_t i = 0; i < n_down; i++) to[i] = (float)numbers[i];
    kac_lora_up_values(numbers, m);
    for (int64_t i = 0; i < n_up; i++) to[n_down + i] = (float)(scale * numbers[i]);
    kac_free(numbers);
    return KAC_OK;
}

static kac_status read_lora(const kac_parameters *p, const place *list, float *values, const char *path) {
    kac_lora file;
    KAC_TRY(kac_lora_open(&file, path));
    kac_lora_resolve_sgm(&file, count_layers(p));
    kac_status s = KAC_OK;
    for (int i = 0; i < p->n_tuned && s == KAC_OK; i++) s = read_module(p, &list[i], values, &file);
    if (s == KAC_OK && file.n_modules + file.n_unknown > p->n_tuned)
        s = KAC_FAIL(KAC_E_FORMAT,
                     "%s changes %d layers, %d of them are tuned; choose all of them, or add it as --lora", file.path,
                     file.n_modules + file.n_unknown, p->n_tuned);
    kac_lora_close(&file);
    return s;
}

static kac_status read_tensor(const place *at, float *values, const kac_weights *file) {
    const kac_parameters_layer *l = at->l;
    int64_t n = 1;
    for (int i = 0; i < l->rank; i++) n *= l->shape[i];
    kac_tensor t;
    KAC_TRY(kac_weights_find(file, at->part->name, &t));
    bool same = t.rank >= l->rank && kac_tensor_count(t) == n;
    for (int i = 0; i < l->rank && same; i++) same = t.shape[i] == l->shape[i];
    if (!same || (t.dtype != KAC_F32 && t.dtype != KAC_F16 && t.dtype != KAC_BF16 && t.dtype != KAC_F64)) {
        char text[96];
        return KAC_FAIL(KAC_E_SHAPE, "%s: %s is %s, which does not fit what is tuned", file->path, at->part->name,
                        kac_tensor_text(t, text, sizeof text));
    }
    for (int64_t i = 0; i < n; i++) values[at->part->at + i] = (float)kac_element_load(t.data, t.dtype, i);
    return KAC_OK;
}

static kac_status read_whole(const kac_parameters *p, const place *list, float *values, const char *path) {
    kac_weights file;
    KAC_TRY(kac_weights_open(&file, path));
    kac_status s = KAC_OK;
    for (int i = 0; i < p->n_tuned && s == KAC_OK; i++) s = read_tensor(&list[i], values, &file);
    kac_weights_close(&file);
    return s;
}

kac_status kac_parameters_read(const kac_parameters *p, float *values, const char *path) {
    place *list = NULL;
    kac_status s = list_places(p, &list);
    if (s == KAC_OK)
        s = p->spec.kind == KAC_PARAMETERS_FULL ? read_whole(p, list, values, path) : read_lora(p, list, values, path);
    kac_free(list);
    return s;
}
