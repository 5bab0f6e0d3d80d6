#include "model/source_tiny.h"
#include <ctype.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_STAGES = 8, MAX_LAYERS = 256 };

/* ---- the files ---- */

static const char *const halves[] = {"encoder", "decoder"};

static bool ends_in(const char *name, const char *end) {
    const size_t n = strlen(name), n_end = strlen(end);
    return n >= n_end && strcmp(name + n - n_end, end) == 0;
}

/* The first file in `dir`, by name, that is called *WORD*.safetensors (or .pth when there is none); NULL: none. */
static kac_status find_half(char **out, const char *dir, const char *word) {
    static const char *const ends[] = {".safetensors", ".pth"};
    *out = NULL;
    for (int k = 0; k < KAC_COUNT_OF(ends) && *out == NULL; k++) {
        DIR *folder = opendir(dir);
        if (folder == NULL) return KAC_FAIL(KAC_E_IO, "cannot read the folder %s", dir);
        char *found = NULL;
        for (const struct dirent *e = readdir(folder); e != NULL; e = readdir(folder)) {
            if (!ends_in(e->d_name, ends[k]) || strstr(e->d_name, word) == NULL) continue;
            if (found != NULL && strcmp(e->d_name, found) >= 0) continue;
            kac_free(found);
            found = kac_strdup(e->d_name);
        }
        closedir(folder);
        if (found != NULL) *out = kac_path_join(dir, found);
        kac_free(found);
    }
    return KAC_OK;
}

/* The same path with the other half's name in its last part; NULL: it names no half, or there is no such file. */
static char *partner_of(const char *path, const char *own, const char *other) {
    const char *at = strstr(kac_path_base(path), own);
    if (at == NULL) return NULL;
    char *partner = kac_format("%.*s%s%s", (int)(at - path), path, other, at + strlen(own));
    if (partner != NULL && kac_file_exists(partner)) return partner;
    kac_free(partner);
    return NULL;
}

/* [encoder, decoder]; a file with both halves counts as the decoder. Entries may be NULL. */
static kac_status find_files(char *files[2], const char *path) {
    if (kac_dir_exists(path)) {
        for (int i = 0; i < 2; i++) KAC_TRY(find_half(&files[i], path, halves[i]));
        if (files[1] != NULL) return KAC_OK;
        return KAC_FAIL(KAC_E_IO, "%s holds neither config.json nor a file *decoder*.safetensors: no autoencoder",
                        path);
    }
    const bool is_encoder = strstr(kac_path_base(path), halves[0]) != NULL;
    files[is_encoder ? 0 : 1] = kac_strdup(path);
    files[is_encoder ? 1 : 0] = partner_of(path, halves[is_encoder ? 0 : 1], halves[is_encoder ? 1 : 0]);
    if (files[1] == NULL)
        return KAC_FAIL(KAC_E_IO, "%s is the encoder of an autoencoder; its decoder does not lie beside it", path);
    return KAC_OK;
}

/* ---- the names ---- */

/* "7.conv.0.weight" of the encoder → "encoder.layers.7.conv.0.weight"; a decoder's number is one less, since its layer 0, the clamp of the
 * latents, is no layer there. Other names stay. */
static char *diffusers_name(int part, const char *name) {
    char *end = NULL;
    const long layer = isdigit((unsigned char)name[0]) ? strtol(name, &end, 10) : -1;
    if (end == NULL || *end != '.' || layer > MAX_LAYERS || layer < part) return kac_strdup(name);
    return kac_format("%s.layers.%ld%s", halves[part], layer - part, end);
}

static char *decoder_name(int part, const char *name) {
    return diffusers_name(part + 1, name);
}

static kac_status open_weights(kac_source *s, char *const files[2]) {
    if (files[0] == NULL)
        return kac_weights_open_parts(&s->weights, s->path, (const char *[]){files[1]}, 1, decoder_name);
    return kac_weights_open_parts(&s->weights, s->path, (const char *[]){files[0], files[1]}, 2, diffusers_name);
}

/* ---- the config ---- */

static const kac_weights_entry *layer(const kac_source *s, int half, int i, const char *rest) {
    char name[64];
    snprintf(name, sizeof name, "%s.layers.%d.%s", halves[half], i, rest);
    return kac_weights_entry_of(&s->weights, name);
}

typedef struct half_shape {
    int blocks[MAX_STAGES]; /* of each stage */
    int n_stages;
    int64_t n_in, width, n_out; /* channels */
} half_shape;

/* Walks the layers: a convolution begins a stage of the encoder and ends one of the decoder; activations and upsampling have no tensors,
 * at most two in a row. */
static kac_status read_half(half_shape *h, const kac_source *s, int half) {
    const kac_weights_entry *last = NULL;
    *h = (half_shape){0};
    int n_blocks = 0;
    for (int i = 0, gap = 0; gap < 3 && i < MAX_LAYERS; i++) {
        const kac_weights_entry *conv = layer(s, half, i, "weight");
        const bool block = layer(s, half, i, "conv.0.weight") != NULL;
        gap = conv == NULL && !block ? gap + 1 : 0;
        n_blocks += block;
        if (conv == NULL) continue;
        if (conv->rank != 4) return KAC_FAIL(KAC_E_FORMAT, "%s: \"%s\" is no convolution", s->path, conv->name);
        if (last == NULL)
            h->n_in = conv->shape[1], h->width = conv->shape[0];
        else if (h->n_stages == MAX_STAGES)
            return KAC_FAIL(KAC_E_UNSUPPORTED, "%s: more than %d stages", s->path, (int)MAX_STAGES);
        else
            h->blocks[h->n_stages++] = n_blocks;
        n_blocks = 0;
        last = conv;
    }
    if (last == NULL || h->n_stages < 2)
        return KAC_FAIL(KAC_E_FORMAT, "%s holds no %s of a tiny autoencoder (layers with bare numbers, or %s.layers.…)",
                        s->path, halves[half], halves[half]);
    h->n_out = last->shape[0];
    return KAC_OK;
}

static void add_stages(kac_text *t, const char *name, const half_shape *h) {
    kac_text_add(t, ", \"%s_block_out_channels\": [", name);
    for (int i = 0; i < h->n_stages; i++) kac_text_add(t, "%s%lld", i > 0 ? ", " : "", (long long)h->width);
    kac_text_add(t, "], \"num_%s_blocks\": [", name);
    for (int i = 0; i < h->n_stages; i++) kac_text_add(t, "%s%d", i > 0 ? ", " : "", h->blocks[i]);
    kac_text_add(t, "]");
}

/* What diffusers would write for these tensors. */
static kac_status infer_config(kac_source *s) {
    half_shape encoder, decoder;
    KAC_TRY(read_half(&decoder, s, 1));
    const bool has_encoder = layer(s, 0, 0, "weight") != NULL;
    if (has_encoder) KAC_TRY(read_half(&encoder, s, 0));
    kac_text t = {0};
    kac_text_add(&t,
                 "{\"_class_name\": \"AutoencoderTiny\", \"in_channels\": %lld, \"out_channels\": %lld, "
                 "\"latent_channels\": %lld",
                 (long long)(has_encoder ? encoder.n_in : decoder.n_out), (long long)decoder.n_out,
                 (long long)decoder.n_in);
    if (has_encoder) add_stages(&t, halves[0], &encoder);
    add_stages(&t, halves[1], &decoder);
    kac_text_add(&t, "}");
    const kac_status status =
        t.failed ? KAC_FAIL(KAC_E_MEMORY, "out of memory") : kac_json_parse(&s->config, t.s, t.n, s->path);
    kac_text_free(&t);
    return status;
}

kac_status kac_source_open_tiny(kac_source *s, const char *path) {
    char *files[2] = {0};
    *s = (kac_source){.path = kac_strdup(path)};
    kac_status status = s->path == NULL ? KAC_E_MEMORY : find_files(files, path);
    if (status == KAC_OK) status = open_weights(s, files);
    if (status == KAC_OK) status = infer_config(s);
    kac_free(files[0]), kac_free(files[1]);
    if (status != KAC_OK) kac_source_close(s);
    return status;
}
