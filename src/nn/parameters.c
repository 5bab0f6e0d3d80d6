#include "nn/parameters_parts.h"
#include "tensor/convert.h"
#include <math.h>
#include <string.h>

/* ---- creating ---- */

/* Pieces of `text` between commas, without spaces around them. */
static kac_status read_patterns(kac_parameters *p, const char *text) {
    while (*text != '\0') {
        const size_t n = strcspn(text, ",");
        size_t first = 0, end = n;
        while (first < end && text[first] == ' ') first++;
        while (end > first && text[end - 1] == ' ') end--;
        if (end > first) {
            kac_parameters_pattern *more = kac_realloc(p->pattern, (size_t)(p->n_patterns + 1) * sizeof *p->pattern);
            if (more == NULL) return KAC_E_MEMORY;
            p->pattern = more;
            more[p->n_patterns] =
                (kac_parameters_pattern){.text = kac_format("%.*s", (int)(end - first), text + first)};
            if (more[p->n_patterns++].text == NULL) return KAC_E_MEMORY;
        }
        text += n + (text[n] == ',');
    }
    return p->n_patterns > 0 ? KAC_OK
                             : KAC_FAIL(KAC_E_USAGE, "no layers to tune were named; e.g. to_q,to_k,to_v,to_out.0");
}

static kac_status check_spec(const kac_parameters_spec *spec) {
    if (spec->kind == KAC_PARAMETERS_FULL)
        return spec->targets == NULL || strcmp(spec->targets, "*") == 0
                   ? KAC_OK
                   : KAC_FAIL(KAC_E_USAGE, "without LoRA the whole network is tuned; layers cannot be chosen (\"%s\")",
                              spec->targets);
    if (spec->rank < 1) return KAC_FAIL(KAC_E_USAGE, "the rank of a LoRA must be at least 1, not %d", spec->rank);
    if (!isfinite(spec->alpha) || spec->alpha == 0)
        return KAC_FAIL(KAC_E_USAGE, "the alpha of a LoRA must be a finite number other than 0, not %g", spec->alpha);
    return KAC_OK;
}

kac_status kac_parameters_create(kac_parameters **out, const kac_parameters_spec *spec) {
    *out = NULL;
    KAC_TRY(check_spec(spec));
    kac_parameters *p = kac_alloc(sizeof *p);
    if (p == NULL) return KAC_E_MEMORY;
    p->spec = *spec;
    const bool full = spec->kind == KAC_PARAMETERS_FULL;
    const kac_status s = read_patterns(p, full ? "*" : spec->targets == NULL ? "" : spec->targets);
    p->spec.targets = NULL; /* the caller's */
    if (full) p->spec.rank = 0;
    if (s == KAC_OK)
        *out = p;
    else
        kac_parameters_free(p);
    return s;
}

void kac_parameters_free(kac_parameters *p) {
    if (p == NULL) return;
    for (int i = 0; i < p->n_patterns; i++) kac_free(p->pattern[i].text);
    for (int i = 0; i < p->n_layers; i++)
        for (int k = 0; k < p->layer[i].n_parts; k++) kac_free(p->layer[i].part[k].name);
    for (int i = 0; i < p->n_seen; i++) kac_free(p->seen[i]);
    kac_free(p->pattern), kac_free(p->layer), kac_free(p->seen), kac_free(p->start);
    kac_free(p);
}

/* ---- patterns ---- */

/* Whether all of `text` reads as the pattern, in which * stands for anything. */
static bool reads_as(const char *pattern, const char *text) {
    const char *star = NULL, *from = NULL;
    while (*text != '\0') {
        if (*pattern == '*')
            star = ++pattern, from = text;
        else if (*pattern == *text)
            pattern++, text++;
        else if (star != NULL)
            pattern = star, text = ++from;
        else
            return false;
    }
    while (*pattern == '*') pattern++;
    return *pattern == '\0';
}

/* The whole path, or what stands behind one of its dots. */
static bool fits_pattern(const char *pattern, const char *path) {
    for (; path != NULL; path = strchr(path, '.'), path = path == NULL ? NULL : path + 1)
        if (reads_as(pattern, path)) return true;
    return false;
}

static bool fits(kac_parameters *p, const char *path) {
    bool any = false;
    for (int i = 0; i < p->n_patterns; i++) {
        const bool one = fits_pattern(p->pattern[i].text, path);
        p->pattern[i].n_matched += one;
        any |= one;
    }
    return any;
}

/* ---- layers register themselves ---- */

static kac_status grow(void **list, int *cap, int n, size_t size) {
    if (n < *cap) return KAC_OK;
    const int wanted = KAC_MAX(64, 2 * *cap);
    void *more = kac_realloc(*list, (size_t)wanted * size);
    if (more == NULL) return KAC_E_MEMORY;
    *list = more, *cap = wanted;
    return KAC_OK;
}

static kac_status note_seen(kac_parameters *p, const char *path) {
    KAC_TRY(grow((void **)&p->seen, &p->cap_seen, p->n_seen, sizeof *p->seen));
    p->seen[p->n_seen] = kac_strdup(path);
    return p->seen[p->n_seen++] == NULL ? KAC_E_MEMORY : KAC_OK;
}

/* n numbers of `src` from `first` on become the next values. A plan run only counts them. */
static kac_status add_values(kac_parameters *p, const kac_loader *l, kac_tensor src, int64_t first, int64_t n) {
    const int64_t at = p->n_values;
    p->n_values += n;
    if (l->c->model.counting) return KAC_OK;
    if (p->n_values > p->cap_values) {
        const int64_t wanted = KAC_MAX(p->n_values, 2 * p->cap_values);
        float *more = kac_realloc(p->start, (size_t)wanted * sizeof *more);
        if (more == NULL) return KAC_E_MEMORY;
        p->start = more, p->cap_values = wanted;
    }
    for (int64_t i = 0; i < n; i++) p->start[at + i] = (float)kac_element_load(src.data, src.dtype, first + i);
    return KAC_OK;
}

static int file_rank(const kac_loader *l, const char *name) {
    const kac_weights_entry *e = kac_weights_entry_of(l->weights, name);
    return e == NULL ? 0 : e->rank;
}

static kac_status add_layer(kac_parameters *p, const kac_parameters_layer *layer) {
    KAC_TRY(grow((void **)&p->layer, &p->cap_layers, p->n_layers, sizeof *p->layer));
    p->layer[p->n_layers++] = *layer;
    return KAC_OK;
}

static void set_shape(kac_parameters_layer *layer, kac_tensor src, int n_parts) {
    layer->n_parts = n_parts;
    layer->rank = src.rank;
    for (int i = 0; i < src.rank; i++) layer->shape[i] = src.shape[i];
    layer->shape[0] /= n_parts;
    layer->n_out = layer->shape[0], layer->n_in = src.rank > 1 ? src.shape[1] : 1;
    layer->kh = src.rank == 4 ? src.shape[2] : 0, layer->kw = src.rank == 4 ? src.shape[3] : 0;
}

/* The parts of a whole tensor, every one tuned: FULL. */
static kac_status add_tensors(const kac_loader *l, kac_parameters_layer *layer, kac_tensor src, const kac_path *name,
                              const char *suffix) {
    kac_parameters *p = l->parameters;
    const int64_t n = kac_tensor_count(src) / layer->n_parts;
    KAC_TRY(add_layer(p, layer));
    layer = &p->layer[p->n_layers - 1];
    for (int i = 0; i < layer->n_parts; i++) {
        kac_parameters_part *part = &layer->part[i];
        const kac_path full = kac_path_of("%s%s", name[i].s, suffix);
        *part = (kac_parameters_part){.name = kac_strdup(full.s), .tuned = true, .at = p->n_values};
        if (part->name == NULL) return KAC_E_MEMORY;
        part->file_rank = file_rank(l, full.s);
        KAC_TRY(add_values(p, l, src, i * n, n));
        p->n_tuned++;
    }
    return KAC_OK;
}

kac_status kac_parameters_add_table(const kac_loader *l, kac_tensor table, kac_tensor src, const kac_path *name,
                                    int n_name) {
    kac_parameters *p = l->parameters;
    if (p == NULL || p->spec.kind != KAC_PARAMETERS_FULL) return KAC_OK;
    kac_parameters_layer layer = {.table = table};
    set_shape(&layer, src, n_name);
    for (int i = 0; i < n_name; i++) (void)fits(p, name[i].s);
    return add_tensors(l, &layer, src, name, "");
}

static kac_status check_rank(const kac_parameters *p, const kac_parameters_layer *layer, const char *path) {
    const int64_t n_row = layer->n_in * KAC_MAX(1, layer->kh) * KAC_MAX(1, layer->kw);
    if (p->spec.rank <= KAC_MIN(n_row, layer->n_out)) return KAC_OK;
    return KAC_FAIL(KAC_E_USAGE, "rank %d is larger than the layer %s, which maps %lld to %lld numbers; at most %lld",
                    p->spec.rank, path, (long long)n_row, (long long)layer->n_out,
                    (long long)KAC_MIN(n_row, layer->n_out));
}

/* Room for the packed factors; their numbers come with the first apply. */
static kac_status pack_room(const kac_parameters *p, const kac_loader *l, const kac_parameters_layer *layer) {
    kac_nn_low *low = layer->low;
    const int64_t n_down = layer->n_parts * p->spec.rank, n_up = layer->n_parts * layer->n_out;
    float *zeros =
        kac_alloc((size_t)(layer->n_parts * KAC_MAX(kac_parameters_n_down(p, layer), kac_parameters_n_up(p, layer))) *
                  sizeof *zeros);
    if (zeros == NULL) return KAC_E_MEMORY;
    const int64_t shape[] = {n_down, layer->n_in, layer->kh, layer->kw};
    kac_status s =
        kac_weight_pack(l->c, &low->down, kac_tensor_of(zeros, KAC_F32, layer->kh > 0 ? 4 : 2, shape), layer->stride);
    if (s == KAC_OK) s = kac_weight_pack(l->c, &low->up, kac_tensor_make(zeros, KAC_F32, n_up, p->spec.rank), 1);
    kac_free(zeros);
    return s;
}

static kac_status add_low(const kac_loader *l, kac_parameters_layer *layer, const kac_path *path) {
    kac_parameters *p = l->parameters;
    bool tuned[KAC_PARAMETERS_STACK], any = false;
    for (int i = 0; i < layer->n_parts; i++) any |= tuned[i] = fits(p, path[i].s);
    if (!any) return KAC_OK;
    KAC_TRY(add_layer(p, layer));
    layer = &p->layer[p->n_layers - 1];
    for (int i = 0; i < layer->n_parts; i++) {
        kac_parameters_part *part = &layer->part[i];
        *part = (kac_parameters_part){.name = kac_strdup(path[i].s), .tuned = tuned[i], .at = p->n_values};
        if (part->name == NULL) return KAC_E_MEMORY;
        part->file_rank = file_rank(l, kac_path_of("%s.weight", path[i].s).s);
        if (!tuned[i]) continue;
        KAC_TRY(check_rank(p, layer, path[i].s));
        p->n_values += kac_parameters_n_down(p, layer) + kac_parameters_n_up(p, layer);
        p->n_tuned++;
    }
    return pack_room(p, l, layer);
}

kac_status kac_parameters_add_weight(const kac_loader *l, kac_weight *w, kac_nn_low *low, kac_tensor src,
                                     const kac_path *path, int n_path, int stride) {
    kac_parameters *p = l->parameters;
    if (p == NULL) return KAC_OK;
    KAC_ASSERT(n_path <= KAC_PARAMETERS_STACK);
    p->lora_part = l->lora_part;
    for (int i = 0; i < n_path; i++) KAC_TRY(note_seen(p, path[i].s));
    kac_parameters_layer layer = {.stride = stride};
    set_shape(&layer, src, n_path);
    if (p->spec.kind == KAC_PARAMETERS_FULL) {
        for (int i = 0; i < n_path; i++) (void)fits(p, path[i].s);
        layer.w = w;
        return add_tensors(l, &layer, src, path, ".weight");
    }
    layer.low = low;
    return add_low(l, &layer, path);
}

/* ---- ready ---- */

/* A layer's last name, with the one before it where it is a number: "to_q", "to_out.0". */
static const char *last_name(const char *path) {
    const char *dot = strrchr(path, '.');
    if (dot != NULL && dot[1] >= '0' && dot[1] <= '9')
        for (dot--; dot > path && *dot != '.';) dot--;
    return dot == NULL || *dot != '.' ? path : dot + 1;
}

/* The last names of the layers, every one once. */
static void list_names(const kac_parameters *p, kac_text *t) {
    enum { MOST = 20 };
    const char *shown[MOST];
    int n = 0;
    for (int i = 0; i < p->n_seen && n < MOST; i++) {
        const char *name = last_name(p->seen[i]);
        bool known = false;
        for (int k = 0; k < n && !known; k++) known = strcmp(shown[k], name) == 0;
        if (known) continue;
        kac_text_add(t, "%s%s", n == 0 ? "" : ", ", name);
        shown[n++] = name;
    }
}

static kac_status check_patterns(const kac_parameters *p) {
    for (int i = 0; i < p->n_patterns; i++) {
        if (p->pattern[i].n_matched > 0) continue;
        kac_text names = {0};
        list_names(p, &names);
        const kac_status s =
            names.failed ? KAC_E_MEMORY
                         : KAC_FAIL(KAC_E_USAGE, "\"%s\" matches no layer of this network; layers end in %s; e.g. %s",
                                    p->pattern[i].text, names.s == NULL ? "nothing" : names.s,
                                    p->n_seen == 0 ? "none" : p->seen[p->n_seen / 2]);
        kac_text_free(&names);
        return s;
    }
    return KAC_OK;
}

static void start_down(const kac_parameters *p, const kac_parameters_layer *l, const kac_parameters_part *part,
                       uint32_t slot) {
    const kac_key key = {.seed = p->spec.seed, .purpose = KAC_PURPOSE_DATA};
    const int64_t n = kac_parameters_n_down(p, l);
    float *down = p->start + part->at;
    if (p->spec.init == KAC_LORA_GAUSSIAN) {
        kac_rng_normal(down, n, key, slot, 0);
        for (int64_t i = 0; i < n; i++) down[i] /= (float)p->spec.rank;
        return;
    }
    const double bound = 1 / sqrt((double)(n / p->spec.rank));
    for (int64_t i = 0; i < n; i++) down[i] = (float)(bound * (2 * kac_rng_uniform(key, slot, i) - 1));
}

static kac_status set_start(kac_parameters *p, const kac_ctx *c) {
    if (p->start != NULL) return KAC_OK;
    p->start = kac_alloc((size_t)KAC_MAX(1, p->n_values) * sizeof *p->start);
    if (p->start == NULL) return KAC_E_MEMORY;
    uint32_t slot = 0;
    for (int i = 0; i < p->n_layers && !c->model.counting; i++)
        for (int k = 0; k < p->layer[i].n_parts && p->layer[i].low != NULL; k++)
            if (p->layer[i].part[k].tuned) start_down(p, &p->layer[i], &p->layer[i].part[k], slot++);
    return KAC_OK;
}

/* What is packed, as a tape knows it: down or the whole tensor, and up. */
static kac_tensor packed_down(const kac_parameters_layer *l) {
    return l->low != NULL ? kac_weight_identity(&l->low->down) : l->w != NULL ? kac_weight_identity(l->w) : l->table;
}

static kac_status take_grad(kac_tensor *grad, kac_ctx *c, kac_tensor like) {
    KAC_TRY(kac_take(grad, &c->model, KAC_F32, like.rank, like.shape));
    if (!c->model.counting) memset(grad->data, 0, kac_tensor_bytes(*grad));
    return KAC_OK;
}

kac_status kac_parameters_finish(kac_parameters *p, kac_ctx *c) {
    KAC_TRY(check_patterns(p));
    KAC_TRY(set_start(p, c));
    for (int i = 0; i < p->n_layers; i++) {
        kac_parameters_layer *l = &p->layer[i];
        KAC_TRY(take_grad(&l->grad, c, packed_down(l)));
        if (l->low != NULL) KAC_TRY(take_grad(&l->grad_up, c, kac_weight_identity(&l->low->up)));
    }
    return kac_parameters_apply(p, c, p->start);
}

int64_t kac_parameters_count(const kac_parameters *p) {
    return p->n_values;
}

bool kac_parameters_is_low(const kac_parameters *p) {
    return p->spec.kind == KAC_PARAMETERS_LORA;
}

int kac_parameters_layers(const kac_parameters *p) {
    return p->n_tuned;
}

const float *kac_parameters_start(const kac_parameters *p) {
    return p->start;
}

void kac_parameters_scale(const kac_parameters *p, float *out, const float *values, double scale) {
    const bool full = p->spec.kind == KAC_PARAMETERS_FULL;
    for (int64_t i = 0; i < p->n_values; i++)
        out[i] = full ? (float)(p->start[i] + scale * ((double)values[i] - p->start[i])) : values[i];
    for (int i = 0; i < p->n_layers && !full; i++) {
        const kac_parameters_layer *l = &p->layer[i];
        for (int k = 0; k < l->n_parts; k++) {
            float *up = out + l->part[k].at + kac_parameters_n_down(p, l);
            for (int64_t e = 0; e < kac_parameters_n_up(p, l) && l->part[k].tuned; e++) up[e] = (float)(scale * up[e]);
        }
    }
}

/* ---- values ---- */

static kac_status apply_low(const kac_parameters *p, kac_ctx *c, const kac_parameters_layer *l, const float *values) {
    const int64_t n_down = kac_parameters_n_down(p, l), n_up = kac_parameters_n_up(p, l);
    const float scale = (float)(p->spec.alpha / p->spec.rank);
    const kac_tensor like[2] = {kac_weight_identity(&l->low->down), kac_weight_identity(&l->low->up)};
    kac_tensor down, up;
    KAC_TRY(kac_take(&down, &c->scratch, KAC_F32, like[0].rank, like[0].shape));
    KAC_TRY(kac_take(&up, &c->scratch, KAC_F32, like[1].rank, like[1].shape));
    for (int k = 0; k < l->n_parts && !c->model.counting; k++) {
        float *to_down = (float *)down.data + k * n_down, *to_up = (float *)up.data + k * n_up;
        const float *from = values + l->part[k].at;
        memset(to_down, 0, (size_t)n_down * sizeof *to_down), memset(to_up, 0, (size_t)n_up * sizeof *to_up);
        if (!l->part[k].tuned) continue;
        memcpy(to_down, from, (size_t)n_down * sizeof *to_down);
        for (int64_t i = 0; i < n_up; i++) to_up[i] = scale * from[n_down + i];
    }
    KAC_TRY(kac_weight_update(c, &l->low->down, down, l->stride));
    return kac_weight_update(c, &l->low->up, up, 1);
}

/* Parts lie one after the other in the values too. */
static kac_status apply_whole(kac_ctx *c, const kac_parameters_layer *l, const float *values) {
    const kac_tensor like = packed_down(l);
    const kac_tensor src = kac_tensor_of((void *)(uintptr_t)(values + l->part[0].at), KAC_F32, like.rank, like.shape);
    if (l->w != NULL) return kac_weight_update(c, l->w, src, l->stride);
    kac_tensor table = l->table;
    return kac_copy(c, &table, src);
}

void kac_parameters_switch(kac_parameters *p, bool on) {
    KAC_ASSERT(kac_parameters_is_low(p));
    for (int i = 0; i < p->n_layers; i++) p->layer[i].low->parts = on ? p->layer[i].n_parts : 0;
}

kac_status kac_parameters_apply(kac_parameters *p, kac_ctx *c, const float *values) {
    const bool low = kac_parameters_is_low(p);
    if (low) kac_parameters_switch(p, values != NULL);
    if (low && values == NULL) return KAC_OK;
    if (values == NULL) values = p->start;
    for (int i = 0; i < p->n_layers; i++) {
        const kac_parameters_layer *l = &p->layer[i];
        const size_t mark = kac_arena_mark(&c->scratch);
        const kac_status s = low ? apply_low(p, c, l, values) : apply_whole(c, l, values);
        kac_arena_release(&c->scratch, mark);
        KAC_TRY(s);
    }
    return KAC_OK;
}

/* ---- gradients ---- */

kac_status kac_parameters_watch(kac_parameters *p, kac_grad_tape *t) {
    for (int i = 0; i < p->n_layers; i++) {
        const kac_parameters_layer *l = &p->layer[i];
        KAC_TRY(kac_tape_watch(t, packed_down(l), l->grad));
        if (l->low != NULL) KAC_TRY(kac_tape_watch(t, kac_weight_identity(&l->low->up), l->grad_up));
    }
    return KAC_OK;
}

/* to += scale · from, and from = 0. */
static void move_grad(float *to, float *from, int64_t n, float scale) {
    for (int64_t i = 0; i < n; i++) to[i] += scale * from[i];
    memset(from, 0, (size_t)n * sizeof *from);
}

void kac_parameters_settle(kac_parameters *p, float *grads) {
    const float scale = p->spec.rank > 0 ? (float)(p->spec.alpha / p->spec.rank) : 1;
    for (int i = 0; i < p->n_layers; i++) {
        const kac_parameters_layer *l = &p->layer[i];
        const int64_t n = l->low != NULL ? kac_parameters_n_down(p, l) : kac_tensor_count(l->grad) / l->n_parts,
                      n_up = kac_parameters_n_up(p, l);
        for (int k = 0; k < l->n_parts; k++) { /* of parts that are not tuned both are zero, since the factors are */
            if (!l->part[k].tuned) continue;
            move_grad(grads + l->part[k].at, (float *)l->grad.data + k * n, n, 1);
            if (l->low != NULL) move_grad(grads + l->part[k].at + n, (float *)l->grad_up.data + k * n_up, n_up, scale);
        }
    }
}
