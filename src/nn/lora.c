#include "nn/lora.h"
#include "nn/parameters.h"
#include "tensor/convert.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct file {
    kac_lora lora;
    double scale;
    bool *matched; /* [n_modules] */
} file;

struct kac_lora_set {
    file *files;
    int n_files;
    bool merge;
};

/* ---- the set ---- */

static kac_status open_file(file *f, const kac_lora_use *use) {
    if (!isfinite(use->scale)) return KAC_FAIL(KAC_E_USAGE, "the scale of %s must be a finite number", use->path);
    KAC_TRY(kac_lora_open(&f->lora, use->path));
    f->scale = use->scale;
    f->matched = kac_alloc((size_t)KAC_MAX(f->lora.n_modules, 1) * sizeof *f->matched);
    return f->matched == NULL ? KAC_E_MEMORY : KAC_OK;
}

kac_status kac_lora_set_open(kac_lora_set **out, const kac_lora_use *uses, int n, bool merge) {
    *out = NULL;
    kac_lora_set *s = kac_alloc(sizeof *s);
    if (s == NULL) return KAC_E_MEMORY;
    s->merge = merge;
    s->files = kac_alloc((size_t)KAC_MAX(n, 1) * sizeof *s->files);
    kac_status status = s->files == NULL ? KAC_E_MEMORY : KAC_OK;
    for (int i = 0; i < n && status == KAC_OK; i++) {
        s->n_files++;
        status = open_file(&s->files[i], &uses[i]);
    }
    if (status == KAC_OK)
        *out = s;
    else
        kac_lora_set_close(s);
    return status;
}

void kac_lora_set_close(kac_lora_set *s) {
    if (s == NULL) return;
    for (int i = 0; i < s->n_files; i++) {
        kac_lora_close(&s->files[i].lora);
        kac_free(s->files[i].matched);
    }
    kac_free(s->files);
    kac_free(s);
}

int kac_lora_set_count(const kac_lora_set *s) {
    return s->n_files;
}

const kac_lora *kac_lora_set_file(const kac_lora_set *s, int i) {
    return &s->files[i].lora;
}

double kac_lora_set_scale(const kac_lora_set *s, int i) {
    return s->files[i].scale;
}

int kac_lora_set_matched(const kac_lora_set *s, int i) {
    int n = 0;
    for (int k = 0; k < s->files[i].lora.n_modules; k++) n += s->files[i].matched[k];
    return n;
}

/* ---- everything found its layer ---- */

static kac_status check_file(const file *f, unsigned parts, bool partial) {
    const kac_lora *l = &f->lora;
    kac_text names = {0};
    int n_left = 0, n_matched = 0;
    for (int i = 0; i < l->n_modules; i++) {
        if ((parts >> l->modules[i].part & 1) == 0) continue;
        n_matched += f->matched[i];
        if (f->matched[i]) continue;
        if (n_left < KAC_LORA_N_SHOWN)
            kac_text_add(&names, "%s%s %.100s", n_left == 0 ? "" : ", ", kac_lora_part_name(l->modules[i].part),
                         l->modules[i].path);
        n_left++;
    }
    for (int i = 0; i < KAC_MIN(l->n_unknown, (int)KAC_LORA_N_SHOWN) && n_left + i < KAC_LORA_N_SHOWN; i++)
        kac_text_add(&names, "%s%.100s", n_left + i == 0 ? "" : ", ", l->unknown[i]);
    n_left += l->n_unknown;
    kac_status s = KAC_OK;
    const char *base = kac_lora_base(l);
    if (names.failed)
        s = KAC_E_MEMORY;
    else if (n_matched == 0 && n_left > 0)
        s = KAC_FAIL(KAC_E_FORMAT, "%s: nothing in it fits this model (first: %s); it is a LoRA for %s", l->path,
                     names.s, base[0] == '\0' ? "another model" : base);
    else if (n_left > 0 && !partial)
        s = KAC_FAIL(KAC_E_FORMAT,
                     "%s: %d of its modules and keys belong to nothing in this model (first: %s); "
                     "--lora-partial goes on with the others",
                     l->path, n_left, names.s);
    kac_text_free(&names);
    return s;
}

kac_status kac_lora_set_check(const kac_lora_set *s, unsigned parts, bool partial) {
    for (int i = 0; i < s->n_files; i++) KAC_TRY(check_file(&s->files[i], parts, partial));
    return KAC_OK;
}

/* ---- names ---- */

void kac_lora_begin(const kac_loader *l) {
    if (l->lora == NULL || l->lora_part != KAC_LORA_UNET) return;
    int layers = 0;
    while (layers < 64 && kac_loader_has(l, kac_path_of("down_blocks.0.resnets.%d.conv1.weight", layers).s)) layers++;
    for (int i = 0; i < l->lora->n_files; i++) kac_lora_resolve_sgm(&l->lora->files[i].lora, layers);
}

/* A layer's name as LoRA files know it, with '_' for '.'. */
static void flat_name(char flat[KAC_LORA_MAX_NAME], const kac_loader *l, const char *path) {
    const bool bare = l->lora_part != KAC_LORA_UNET && strncmp(path, "text_", 5) != 0;
    const int n = snprintf(flat, KAC_LORA_MAX_NAME, "%s%s", bare ? "text_model." : "", path);
    KAC_ASSERT(n < KAC_LORA_MAX_NAME);
    for (char *p = flat; *p != '\0'; p++)
        if (*p == '.') *p = '_';
}

/* ---- one layer ---- */

/* What one file adds to one of the stacked layers. */
typedef struct term {
    const kac_lora_module *m;
    double scale;
    int part;       /* which of the stacked layers */
    int64_t offset; /* of its first row among those of its part */
} term;

typedef struct terms {
    term *list;
    int n;
    int64_t rank; /* the largest sum over the files of one part */
} terms;

/* The stacked layers: n_path times [n_out, n_in] or [n_out, n_in, kh, kw]. */
typedef struct layer {
    int64_t n_out, n_in;
    int n_path, kh, kw;
} layer;

static kac_status check_fit(const kac_lora *file, const kac_lora_module *m, const layer *want) {
    if (m->n_in == want->n_in && m->n_out == want->n_out && m->kh == want->kh && m->kw == want->kw) return KAC_OK;
    const char *base = kac_lora_base(file);
    return KAC_FAIL(
        KAC_E_SHAPE,
        "%s: %s maps %lld to %lld (kernel %dx%d), this model's layer %lld to %lld (kernel %dx%d); it is a LoRA "
        "for %s",
        file->path, m->path, (long long)m->n_in, (long long)m->n_out, m->kh, m->kw, (long long)want->n_in,
        (long long)want->n_out, want->kh, want->kw, base[0] == '\0' ? "another model" : base);
}

static kac_status find_terms(terms *t, const kac_loader *l, const layer *want, const kac_path *path) {
    kac_lora_set *set = l->lora;
    *t = (terms){.list = kac_alloc((size_t)(set->n_files * want->n_path) * sizeof *t->list)};
    if (t->list == NULL) return KAC_E_MEMORY;
    for (int part = 0; part < want->n_path; part++) {
        char flat[KAC_LORA_MAX_NAME];
        flat_name(flat, l, path[part].s);
        int64_t rank = 0;
        for (int i = 0; i < set->n_files; i++) {
            file *f = &set->files[i];
            const kac_lora_module *m = kac_lora_find(&f->lora, l->lora_part, flat);
            if (m == NULL) continue;
            KAC_TRY(check_fit(&f->lora, m, want));
            f->matched[m - f->lora.modules] = true;
            t->list[t->n++] = (term){.m = m, .scale = f->scale * m->scale, .part = part, .offset = rank};
            rank += m->rank;
        }
        t->rank = KAC_MAX(t->rank, rank);
    }
    return KAC_OK;
}

/* Both factors of a term as numbers: down [r, n_in · taps], up [n_out, r] without the scale. */
static kac_status read_factors(double **down, double **up, const kac_lora_module *m) {
    *down = kac_alloc((size_t)(m->rank * m->n_in * m->kh * m->kw) * sizeof **down);
    *up = kac_alloc((size_t)(m->n_out * m->rank) * sizeof **up);
    if (*down == NULL || *up == NULL) {
        kac_free(*down), kac_free(*up);
        return KAC_E_MEMORY;
    }
    kac_lora_down_values(*down, m);
    kac_lora_up_values(*up, m);
    return KAC_OK;
}

/* ---- run time ---- */

/* down [parts · R, n_in · taps], up [parts · n_out, R]; ranks below R are filled up with zeros. */
static kac_status fill_factors(float *down, float *up, const terms *t, const layer *want) {
    const int64_t n_row = want->n_in * want->kh * want->kw;
    for (int k = 0; k < t->n; k++) {
        const term *e = &t->list[k];
        const int64_t r = e->m->rank;
        double *a, *b;
        KAC_TRY(read_factors(&a, &b, e->m));
        float *to = down + (e->part * t->rank + e->offset) * n_row;
        for (int64_t i = 0; i < r * n_row; i++) to[i] = (float)a[i];
        for (int64_t o = 0; o < want->n_out; o++)
            for (int64_t i = 0; i < r; i++)
                up[(e->part * want->n_out + o) * t->rank + e->offset + i] = (float)(e->scale * b[o * r + i]);
        kac_free(a), kac_free(b);
    }
    return KAC_OK;
}

static kac_status pack_factors(const kac_loader *l, kac_nn_low *low, const terms *t, const layer *want, bool conv,
                               int stride) {
    low->parts = want->n_path;
    const int64_t n_down = low->parts * t->rank, n_up = low->parts * want->n_out;
    float *down = kac_alloc((size_t)(n_down * want->n_in * want->kh * want->kw) * sizeof *down);
    float *up = kac_alloc((size_t)(n_up * t->rank) * sizeof *up);
    kac_status s = down == NULL || up == NULL ? KAC_E_MEMORY : KAC_OK;
    if (s == KAC_OK && !l->c->model.counting) s = fill_factors(down, up, t, want);
    if (s == KAC_OK && conv)
        s = kac_weight_pack(l->c, &low->down, kac_tensor_make(down, KAC_F32, n_down, want->n_in, want->kh, want->kw),
                            stride);
    if (s == KAC_OK && !conv)
        s = kac_weight_pack(l->c, &low->down, kac_tensor_make(down, KAC_F32, n_down, want->n_in), 1);
    if (s == KAC_OK) s = kac_weight_pack(l->c, &low->up, kac_tensor_make(up, KAC_F32, n_up, t->rank), 1);
    kac_free(down), kac_free(up);
    return s;
}

/* ---- merged ---- */

/* w += scale · up · down, row by row, in double. */
static kac_status add_product(float *w, const term *e, int n_threads) {
    const kac_lora_module *m = e->m;
    const int64_t n_row = m->n_in * m->kh * m->kw, r = m->rank;
    double *a, *b;
    KAC_TRY(read_factors(&a, &b, m));
    double *rows = kac_alloc((size_t)(n_row * n_threads) * sizeof *rows);
#pragma omp parallel for num_threads(n_threads) if (n_threads > 1) schedule(static)
    for (int chunk = 0; chunk < n_threads; chunk++) {
        double *sum = rows + chunk * n_row;
        for (int64_t o = m->n_out * chunk / n_threads; rows != NULL && o < m->n_out * (chunk + 1) / n_threads; o++) {
            memset(sum, 0, (size_t)n_row * sizeof *sum);
            for (int64_t k = 0; k < r; k++) {
                const double u = e->scale * b[o * r + k];
                for (int64_t i = 0; i < n_row; i++) sum[i] += u * a[k * n_row + i];
            }
            for (int64_t i = 0; i < n_row; i++) w[o * n_row + i] = (float)((double)w[o * n_row + i] + sum[i]);
        }
    }
    kac_free(a), kac_free(b), kac_free(rows);
    return rows == NULL ? KAC_E_MEMORY : KAC_OK;
}

/* All of `src` with what the files add to it, on the heap. */
static kac_status merge(const kac_loader *l, float **out, kac_tensor src, const terms *t, const layer *want) {
    const int64_t n = kac_tensor_count(src), n_part = want->n_out * want->n_in * want->kh * want->kw;
    float *values = *out = kac_alloc((size_t)n * sizeof *values);
    if (values == NULL) return KAC_E_MEMORY;
    if (l->c->model.counting) return KAC_OK;
    for (int64_t i = 0; i < n; i++) values[i] = (float)kac_element_load(src.data, src.dtype, i);
    for (int k = 0; k < t->n; k++)
        KAC_TRY(add_product(values + t->list[k].part * n_part, &t->list[k], l->c->n_threads));
    return KAC_OK;
}

/* What is tuned has the run-time factors to itself, so that files are merged then. */
static kac_status pack_terms(const kac_loader *l, kac_weight *w, kac_nn_low *low, kac_tensor src, const kac_path *path,
                             const terms *t, const layer *want, int stride) {
    const bool merged = t->n > 0 && (l->lora->merge || l->parameters != NULL);
    float *values = NULL;
    kac_status s = merged ? merge(l, &values, src, t, want) : KAC_OK;
    if (merged) src = kac_tensor_of(values, KAC_F32, src.rank, src.shape);
    if (s == KAC_OK) s = kac_weight_pack(l->c, w, src, stride);
    if (s == KAC_OK && t->n > 0 && !merged) s = pack_factors(l, low, t, want, src.rank == 4, stride);
    if (s == KAC_OK) s = kac_parameters_add_weight(l, w, low, src, path, want->n_path, stride);
    kac_free(values);
    return s;
}

kac_status kac_lora_pack(const kac_loader *l, kac_weight *w, kac_nn_low *low, kac_tensor src, const kac_path *path,
                         int n_path, int stride) {
    const bool conv = src.rank == 4;
    const layer want = {.n_out = src.shape[0] / n_path,
                        .n_in = src.shape[1],
                        .n_path = n_path,
                        .kh = conv ? (int)src.shape[2] : 1,
                        .kw = conv ? (int)src.shape[3] : 1};
    terms t = {0};
    *low = (kac_nn_low){0};
    kac_status s = l->lora == NULL ? KAC_OK : find_terms(&t, l, &want, path);
    if (s == KAC_OK) s = pack_terms(l, w, low, src, path, &t, &want, stride);
    kac_free(t.list);
    return s;
}
