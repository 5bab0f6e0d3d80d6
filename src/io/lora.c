#include "io/lora.h"
#include "io/lora_names.h"
#include "tensor/convert.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- which file ---- */

/* What PEFT and diffusers call their files in a folder. */
static kac_status find_file(char **out, const char *path) {
    static const char *const names[] = {"adapter_model.safetensors", "pytorch_lora_weights.safetensors",
                                        "adapter_model.bin", "pytorch_lora_weights.bin"};
    *out = NULL;
    if (!kac_dir_exists(path)) {
        *out = kac_strdup(path);
        return *out == NULL ? KAC_E_MEMORY : KAC_OK;
    }
    for (int i = 0; i < KAC_COUNT_OF(names); i++) {
        char *file = kac_path_join(path, names[i]);
        if (file == NULL) return KAC_E_MEMORY;
        if (kac_file_exists(file)) {
            *out = file;
            return KAC_OK;
        }
        kac_free(file);
    }
    return KAC_FAIL(KAC_E_IO, "%s holds neither adapter_model.safetensors nor pytorch_lora_weights.safetensors", path);
}

/* ---- keys ---- */

static int compare_modules(const void *a, const void *b) {
    const kac_lora_module *x = a, *y = b;
    return x->part != y->part ? (x->part < y->part ? -1 : 1) : strcmp(x->flat, y->flat);
}

typedef struct entry {
    const kac_weights_entry *st;
    kac_lora_key key;
    char flat[KAC_LORA_MAX_NAME];
} entry;

static int compare_entries(const void *a, const void *b) {
    const entry *x = a, *y = b;
    if (x->key.part != y->key.part) return x->key.part < y->key.part ? -1 : 1;
    const int order = strcmp(x->flat, y->flat);
    return order != 0 ? order : (int)x->key.slot - (int)y->key.slot;
}

static void add_unknown(kac_lora *l, const char *name) {
    if (l->n_unknown < KAC_LORA_N_SHOWN) l->unknown[l->n_unknown] = name;
    l->n_unknown++;
}

/* The keys that belong to modules, sorted so that those of one module stand together. */
static kac_status read_keys(kac_lora *l, entry *entries, int *n) {
    bool any = false;
    *n = 0;
    for (int i = 0; i < l->weights.n_entries; i++) {
        const kac_weights_entry *st = &l->weights.entries[i];
        entry *e = &entries[*n];
        bool known;
        KAC_TRY(kac_lora_key_read(&e->key, &known, st->name, l->path));
        if (known && !any) l->format = e->key.format;
        any |= known && e->key.slot != KAC_LORA_ALPHA;
        if (!known || e->key.part == KAC_LORA_N_PARTS) {
            add_unknown(l, st->name);
            continue;
        }
        e->st = st;
        kac_lora_flatten(e->flat, e->key.path);
        if (e->key.slot != KAC_LORA_ALPHA) l->format = e->key.format;
        (*n)++;
    }
    if (!any)
        return KAC_FAIL(KAC_E_FORMAT,
                        "%s holds no LoRA: no key ends in lora_down.weight, lora_A.weight or lora.down.weight",
                        l->path);
    if (*n == 0)
        return KAC_FAIL(KAC_E_UNSUPPORTED,
                        "%s is a LoRA of another kind of model: \"%.100s\" belongs to no UNet or CLIP text encoder",
                        l->path, l->unknown[0]);
    qsort(entries, (size_t)*n, sizeof *entries, compare_entries);
    return KAC_OK;
}

/* ---- modules ---- */

static kac_status bad_shapes(const kac_lora *l, const kac_lora_module *m, const char *what) {
    char down[96], up[96];
    return KAC_FAIL(KAC_E_FORMAT, "%s: %s: down %s and up %s %s", l->path, m->path,
                    kac_tensor_text(m->down, down, sizeof down), kac_tensor_text(m->up, up, sizeof up), what);
}

static bool is_matrix(kac_tensor t) {
    return t.rank == 2 || t.rank == 4;
}

static bool is_pointwise(kac_tensor t) {
    return t.rank == 2 || (t.shape[2] == 1 && t.shape[3] == 1);
}

static bool is_float(kac_tensor t) {
    return t.dtype == KAC_F32 || t.dtype == KAC_F16 || t.dtype == KAC_BF16 || t.dtype == KAC_F64;
}

static kac_status check_module(const kac_lora *l, kac_lora_module *m) {
    if (m->down.data == NULL || m->up.data == NULL)
        return KAC_FAIL(KAC_E_FORMAT, "%s: %s has no %s; the file is incomplete", l->path, m->path,
                        m->down.data == NULL ? "down (A) matrix" : "up (B) matrix");
    if (!is_matrix(m->down) || !is_matrix(m->up) || kac_tensor_count(m->down) == 0 || kac_tensor_count(m->up) == 0)
        return bad_shapes(l, m, "must be matrices or convolution kernels");
    if (!is_float(m->down) || !is_float(m->up) || (m->mid.data != NULL && !is_float(m->mid)))
        return bad_shapes(l, m, "must be F32, F16, BF16 or F64");
    m->rank = m->down.shape[0], m->n_in = m->down.shape[1], m->n_out = m->up.shape[0];
    if (m->up.shape[1] != m->rank || !is_pointwise(m->up)) return bad_shapes(l, m, "cannot be multiplied");
    const kac_tensor *kernel = &m->down;
    if (m->mid.data != NULL) {
        if (m->mid.rank != 4 || m->mid.shape[0] != m->rank || m->mid.shape[1] != m->rank || !is_pointwise(m->down))
            return bad_shapes(l, m, "do not fit their lora_mid");
        kernel = &m->mid;
    }
    m->kh = kernel->rank == 4 ? (int)KAC_MIN(kernel->shape[2], 1024) : 1;
    m->kw = kernel->rank == 4 ? (int)KAC_MIN(kernel->shape[3], 1024) : 1;
    if (m->kh > 64 || m->kw > 64) return bad_shapes(l, m, "have an impossible kernel");
    return KAC_OK;
}

static kac_status read_alpha(const kac_lora *l, kac_lora_module *m, const kac_weights_entry *st) {
    kac_tensor t;
    KAC_TRY(kac_weights_view(&l->weights, st, &t));
    if (kac_tensor_count(t) != 1) return KAC_FAIL(KAC_E_FORMAT, "%s: %s must be one number", l->path, st->name);
    m->alpha = kac_element_load(t.data, t.dtype, 0);
    return isfinite(m->alpha) ? KAC_OK : KAC_FAIL(KAC_E_NONFINITE, "%s: %s is not finite", l->path, st->name);
}

/* One module from the n entries that speak of it. */
static kac_status read_module(kac_lora *l, const entry *entries, int n) {
    kac_lora_module *m = &l->modules[l->n_modules];
    *m = (kac_lora_module){.part = entries[0].key.part, .sgm = entries[0].key.sgm, .alpha = NAN, .scale = 1};
    m->path = kac_strdup(entries[0].key.path), m->flat = kac_strdup(entries[0].flat);
    l->n_modules++;
    if (m->path == NULL || m->flat == NULL) return KAC_E_MEMORY;
    for (int i = 0; i < n; i++) {
        kac_tensor *slots[] = {&m->down, &m->up, &m->mid};
        const kac_lora_slot slot = entries[i].key.slot;
        if (i > 0 && slot == entries[i - 1].key.slot)
            return KAC_FAIL(KAC_E_FORMAT, "%s: %s occurs twice, as %s and %s", l->path, m->path,
                            entries[i - 1].st->name, entries[i].st->name);
        if (slot == KAC_LORA_ALPHA)
            KAC_TRY(read_alpha(l, m, entries[i].st));
        else
            KAC_TRY(kac_weights_view(&l->weights, entries[i].st, slots[slot]));
    }
    if (n == 1 && entries[0].key.slot == KAC_LORA_ALPHA) { /* nothing to apply it to */
        add_unknown(l, entries[0].st->name);
        kac_free(m->path), kac_free(m->flat);
        l->n_modules--;
        return KAC_OK;
    }
    return check_module(l, m);
}

static kac_status read_modules(kac_lora *l) {
    const size_t n_entries = (size_t)KAC_MAX(l->weights.n_entries, 1);
    entry *entries = kac_alloc(n_entries * sizeof *entries);
    l->modules = kac_alloc(n_entries * sizeof *l->modules);
    int n = 0;
    kac_status s = entries == NULL || l->modules == NULL ? KAC_E_MEMORY : read_keys(l, entries, &n);
    for (int i = 0, k; i < n && s == KAC_OK; i = k) {
        for (k = i + 1;
             k < n && entries[k].key.part == entries[i].key.part && strcmp(entries[k].flat, entries[i].flat) == 0;)
            k++;
        s = read_module(l, entries + i, k - i);
    }
    kac_free(entries);
    return s;
}

/* ---- the whole ---- */

static kac_status read_all(kac_lora *l, const char *path) {
    KAC_TRY(find_file(&l->path, path));
    KAC_TRY(kac_weights_open(&l->weights, l->path));
    KAC_TRY(read_modules(l));
    return kac_lora_read_scales(l);
}

kac_status kac_lora_open(kac_lora *l, const char *path) {
    *l = (kac_lora){0};
    const kac_status s = read_all(l, path);
    if (s != KAC_OK) kac_lora_close(l);
    return s;
}

void kac_lora_close(kac_lora *l) {
    for (int i = 0; i < l->n_modules; i++) kac_free(l->modules[i].path), kac_free(l->modules[i].flat);
    kac_free(l->modules);
    kac_free(l->path);
    kac_weights_close(&l->weights);
    *l = (kac_lora){0};
}

const kac_lora_module *kac_lora_find(const kac_lora *l, kac_lora_part part, const char *flat) {
    const kac_lora_module key = {.part = part, .flat = (char *)(uintptr_t)flat};
    return l->n_modules == 0 ? NULL
                             : bsearch(&key, l->modules, (size_t)l->n_modules, sizeof *l->modules, compare_modules);
}

void kac_lora_resolve_sgm(kac_lora *l, int layers) {
    bool any = false;
    for (int i = 0; i < l->n_modules; i++) {
        kac_lora_module *m = &l->modules[i];
        char name[KAC_LORA_MAX_NAME], flat[KAC_LORA_MAX_NAME];
        if (!m->sgm || !kac_lora_from_sgm(name, m->path, layers)) continue;
        kac_lora_flatten(flat, name);
        char *own_path = kac_strdup(name), *own_flat = kac_strdup(flat);
        if (own_path == NULL || own_flat == NULL) { /* left as it was: it then matches nothing, which is reported */
            kac_free(own_path), kac_free(own_flat);
            continue;
        }
        kac_free(m->path), kac_free(m->flat);
        m->path = own_path, m->flat = own_flat, m->sgm = false;
        any = true;
    }
    if (any) qsort(l->modules, (size_t)l->n_modules, sizeof *l->modules, compare_modules);
}

/* ---- what it is for ---- */

int64_t kac_lora_cross_width(const kac_lora *l) {
    for (int i = 0; i < l->n_modules; i++) {
        const kac_lora_module *m = &l->modules[i];
        const size_t n = strlen(m->flat);
        if (m->part == KAC_LORA_UNET && n > 10 &&
            (strcmp(m->flat + n - 10, "attn2_to_k") == 0 || strcmp(m->flat + n - 10, "attn2_to_v") == 0))
            return m->n_in;
    }
    return 0;
}

const char *kac_lora_base(const kac_lora *l) {
    const int64_t width = kac_lora_cross_width(l);
    if (width == 768) return "SD 1.x";
    if (width == 1024) return "SD 2.x";
    if (width == 2048) return "SDXL";
    if (width == 1280) return "SDXL refiner";
    for (int i = 0; i < l->n_modules; i++)
        if (l->modules[i].part == KAC_LORA_TEXT_2) return "SDXL";
    return "";
}

/* ---- the numbers ---- */

void kac_lora_down_values(double *out, const kac_lora_module *m) {
    const int64_t n_taps = (int64_t)m->kh * m->kw;
    if (m->mid.data == NULL) {
        for (int64_t i = 0; i < m->rank * m->n_in * n_taps; i++)
            out[i] = kac_element_load(m->down.data, m->down.dtype, i);
        return;
    }
    for (int64_t r = 0; r < m->rank; r++) /* Σ_q mid[r, q, tap] down[q, i] */
        for (int64_t i = 0; i < m->n_in; i++)
            for (int64_t tap = 0; tap < n_taps; tap++) {
                double sum = 0;
                for (int64_t q = 0; q < m->rank; q++)
                    sum += kac_element_load(m->mid.data, m->mid.dtype, (r * m->rank + q) * n_taps + tap) *
                           kac_element_load(m->down.data, m->down.dtype, q * m->n_in + i);
                out[(r * m->n_in + i) * n_taps + tap] = sum;
            }
}

void kac_lora_up_values(double *out, const kac_lora_module *m) {
    for (int64_t i = 0; i < m->n_out * m->rank; i++) out[i] = kac_element_load(m->up.data, m->up.dtype, i);
}
