#include "io/inversion.h"
#include <string.h>

/* ---- the token ---- */

/* FILE:TOKEN; a colon inside an existing file's name belongs to the name. */
static kac_status split_spec(char **path, char **token, const char *spec) {
    *token = NULL;
    const char *colon = kac_file_exists(spec) ? NULL : strrchr(spec, ':');
    *path = colon == NULL ? kac_strdup(spec) : kac_format("%.*s", (int)(colon - spec), spec);
    if (colon != NULL) *token = kac_strdup(colon + 1);
    if (*path == NULL || (colon != NULL && *token == NULL)) return KAC_E_MEMORY;
    return colon == NULL || colon[1] != '\0' ? KAC_OK
                                             : KAC_FAIL(KAC_E_USAGE, "--embedding %s: the token is empty", spec);
}

static char *name_of_file(const char *path) {
    const char *base = kac_path_base(path), *dot = strrchr(base, '.');
    return kac_format("%.*s", dot == NULL || dot == base ? (int)strlen(base) : (int)(dot - base), base);
}

static kac_status check_token(const kac_inversion *e) {
    const size_t n = strlen(e->token);
    if (n == 0 || n > 128 || e->token[strcspn(e->token, " \t\r\n")] != '\0')
        return KAC_FAIL(KAC_E_USAGE,
                        "%s: \"%.60s\" cannot be a token: it must be 1 to 128 bytes without spaces; give another as "
                        "FILE:TOKEN",
                        e->path, e->token);
    return KAC_OK;
}

/* ---- the vectors ---- */

static kac_status read_rows(kac_inversion *e, int encoder, const char *name) {
    kac_tensor t;
    KAC_TRY(kac_weights_find(&e->weights, name, &t));
    if (t.rank == 1) t = kac_tensor_make(t.data, t.dtype, 1, t.shape[0]);
    const bool number = t.dtype == KAC_F32 || t.dtype == KAC_F16 || t.dtype == KAC_BF16 || t.dtype == KAC_F64;
    if (t.rank != 2 || kac_tensor_count(t) == 0 || !number || t.shape[0] > KAC_INVERSION_MAX_VECTORS) {
        char text[96];
        return KAC_FAIL(KAC_E_FORMAT, "%s: %.60s is %s; vectors of an embedding are [1 … %d, width] numbers", e->path,
                        name, kac_tensor_text(t, text, sizeof text), (int)KAC_INVERSION_MAX_VECTORS);
    }
    if (encoder > 0 && t.shape[0] != e->n)
        return KAC_FAIL(KAC_E_FORMAT, "%s: clip_l has %d vectors, clip_g %lld; they must be as many", e->path, e->n,
                        (long long)t.shape[0]);
    e->rows[encoder] = t;
    e->n = (int)t.shape[0];
    return KAC_OK;
}

/* The file's own name for it goes to *token, when it says one. */
static kac_status read_vectors(kac_inversion *e, const char **token) {
    const kac_weights *w = &e->weights;
    *token = NULL;
    if (kac_weights_entry_of(w, "clip_l") != NULL && kac_weights_entry_of(w, "clip_g") != NULL) {
        KAC_TRY(read_rows(e, 0, "clip_l"));
        return read_rows(e, 1, "clip_g");
    }
    if (kac_weights_entry_of(w, "emb_params") != NULL) return read_rows(e, 0, "emb_params");
    if (kac_weights_entry_of(w, "string_to_param.*") != NULL) {
        *token = kac_weights_metadata(w, "name");
        if (*token != NULL && ((*token)[0] == '\0' || strcmp(*token, "*") == 0)) *token = NULL;
        return read_rows(e, 0, "string_to_param.*");
    }
    if (w->n_entries == 1) {
        *token = w->entries[0].name;
        return read_rows(e, 0, w->entries[0].name);
    }
    return KAC_FAIL(
        KAC_E_FORMAT,
        "%s holds %d tensors and is no textual inversion: one tensor under its token, string_to_param, emb_params, or "
        "clip_l and clip_g are wanted",
        e->path, w->n_entries);
}

static kac_status open_one(kac_inversion *e, const char *spec) {
    const char *own = NULL;
    KAC_TRY(split_spec(&e->path, &e->token, spec));
    KAC_TRY(kac_weights_open(&e->weights, e->path));
    KAC_TRY(read_vectors(e, &own));
    if (e->token == NULL) e->token = own != NULL ? kac_strdup(own) : name_of_file(e->path);
    return e->token == NULL ? KAC_E_MEMORY : check_token(e);
}

/* ---- the set ---- */

kac_status kac_inversion_set_open(kac_inversion_set *s, const char *const *specs, int n) {
    *s = (kac_inversion_set){.list = kac_alloc((size_t)KAC_MAX(n, 1) * sizeof *s->list)};
    kac_status status = s->list == NULL ? KAC_E_MEMORY : KAC_OK;
    for (int i = 0; i < n && status == KAC_OK; i++) {
        s->n++;
        status = open_one(&s->list[i], specs[i]);
        for (int k = 0; k < i && status == KAC_OK; k++)
            if (strcmp(s->list[k].token, s->list[i].token) == 0)
                status = KAC_FAIL(KAC_E_USAGE, "%s and %s have the same token %s; give one another name as FILE:TOKEN",
                                  s->list[k].path, s->list[i].path, s->list[i].token);
    }
    if (status != KAC_OK) kac_inversion_set_close(s);
    return status;
}

void kac_inversion_set_close(kac_inversion_set *s) {
    for (int i = 0; i < s->n; i++) {
        kac_weights_close(&s->list[i].weights);
        kac_free(s->list[i].path), kac_free(s->list[i].token);
    }
    kac_free(s->list);
    *s = (kac_inversion_set){0};
}

int kac_inversion_set_count(const kac_inversion_set *s) {
    int n = 0;
    for (int i = 0; i < s->n; i++) n += s->list[i].n;
    return n;
}

static const char *model_of_width(int64_t width) {
    return width == 768 ? " (SD 1.x)" : width == 1024 ? " (SD 2.x)" : width == 1280 ? " (SDXL's second)" : "";
}

kac_status kac_inversion_set_check(const kac_inversion_set *s, int encoder, int n_encoders, int64_t width) {
    for (int i = 0; i < s->n; i++) {
        const kac_inversion *e = &s->list[i];
        if (e->rows[encoder].data == NULL)
            return KAC_FAIL(KAC_E_SHAPE,
                            "%s has vectors for one text encoder, this model has two: a file with clip_l and clip_g is "
                            "wanted",
                            e->path);
        if (n_encoders == 1 && e->rows[1].data != NULL)
            return KAC_FAIL(KAC_E_SHAPE, "%s has vectors for two text encoders (SDXL), this model has one", e->path);
        const int64_t have = e->rows[encoder].shape[1];
        if (have != width)
            return KAC_FAIL(KAC_E_SHAPE, "%s: its vectors are %lld wide%s, this model's text encoder wants %lld%s",
                            e->path, (long long)have, model_of_width(have), (long long)width, model_of_width(width));
    }
    return KAC_OK;
}
