#include "reward/clip_files.h"
#include "model/open_clip.h"
#include "reward/reward_files.h"
#include <string.h>

/* The path without "@quick_gelu" or "@gelu"; *quick −1: nothing said. */
static char *cut_activation(int *quick, const char *path) {
    static const char *const ends[] = {"@gelu", "@quick_gelu"};
    const size_t n = strlen(path);
    *quick = -1;
    for (int i = 0; i < 2; i++) {
        const size_t n_end = strlen(ends[i]);
        if (n <= n_end || strcmp(path + n - n_end, ends[i]) != 0) continue;
        *quick = i;
        return kac_format("%.*s", (int)(n - n_end), path);
    }
    return kac_strdup(path);
}

/* ---- open_clip ---- */

static kac_status read_triple(const kac_json *j, const cJSON *obj, const char *key, double out[3]) {
    int n = 0;
    KAC_TRY(kac_json_reals(j, obj, key, out, 3, &n));
    if (n == 1) out[1] = out[2] = out[0];
    return n == 2 ? KAC_FAIL(KAC_E_FORMAT, "%s: \"%s\" must hold three numbers", j->name, key) : KAC_OK;
}

/* preprocess_cfg of open_clip_config.json. */
static kac_status read_preprocess(kac_preprocess *p, const kac_json *j) {
    const cJSON *cfg = j->root == NULL ? NULL : cJSON_GetObjectItemCaseSensitive(j->root, "preprocess_cfg");
    const char *filter = "bicubic", *mode = "shortest";
    if (!cJSON_IsObject(cfg)) return KAC_OK;
    KAC_TRY(read_triple(j, cfg, "mean", p->mean));
    KAC_TRY(read_triple(j, cfg, "std", p->std));
    KAC_TRY(kac_json_text(j, cfg, "interpolation", &filter));
    KAC_TRY(kac_json_text(j, cfg, "resize_mode", &mode));
    for (int i = 0; i < 3; i++)
        if (!(p->std[i] > 0)) return KAC_FAIL(KAC_E_FORMAT, "%s: \"std\" must be positive", j->name);
    const bool bicubic = strcmp(filter, "bicubic") == 0;
    if (!bicubic && strcmp(filter, "bilinear") != 0)
        return KAC_FAIL(KAC_E_UNSUPPORTED, "%s: \"interpolation\" is \"%s\"; bicubic and bilinear are supported",
                        j->name, filter);
    p->filter = bicubic ? KAC_RESIZE_BICUBIC : KAC_RESIZE_BILINEAR;
    if (strcmp(mode, "squash") == 0)
        p->resize_height = p->resize_width = p->shortest_edge, p->shortest_edge = 0;
    else if (strcmp(mode, "shortest") != 0)
        return KAC_FAIL(KAC_E_UNSUPPORTED, "%s: \"resize_mode\" is \"%s\"; shortest and squash are supported", j->name,
                        mode);
    return KAC_OK;
}

static kac_status load_open_clip(kac_clip **clip, kac_preprocess *p, kac_ctx *c, kac_source *s, const char *folder,
                                 int quick) {
    char *path = kac_path_join(folder, "open_clip_config.json");
    if (path == NULL) return KAC_E_MEMORY;
    kac_json_free(&s->config);
    kac_preprocess rules = kac_preprocess_clip(224);
    kac_status status = kac_file_exists(path) ? kac_json_load(&s->config, path) : KAC_OK;
    if (status == KAC_OK) status = read_preprocess(&rules, &s->config);
    kac_free(path);
    KAC_TRY(status);
    KAC_TRY(kac_open_clip_translate(s, quick));
    KAC_TRY(kac_clip_load_from(clip, c, s));
    const int edge = (int)kac_clip_config_of(*clip)->image_size;
    *p = rules;
    p->crop_rule = KAC_CROP_EVEN;
    p->crop_height = p->crop_width = edge;
    if (p->shortest_edge > 0)
        p->shortest_edge = edge;
    else
        p->resize_height = p->resize_width = edge;
    return KAC_OK;
}

/* ---- any ---- */

static kac_status open_source(kac_clip **clip, kac_preprocess *p, kac_ctx *c, kac_source *s, const char *folder,
                              int quick) {
    const kac_reward_content content = kac_reward_content_of(s);
    if (content == KAC_CONTENT_OPEN_CLIP) return load_open_clip(clip, p, c, s, folder, quick);
    if (content != KAC_CONTENT_CLIP) return kac_reward_wrong_content(s, "a CLIP with text and vision towers");
    if (s->config.root == NULL)
        return KAC_FAIL(KAC_E_FORMAT, "%s has no config.json, which a CLIP of transformers needs", folder);
    if (quick >= 0)
        return KAC_FAIL(KAC_E_USAGE, "%s: config.json names the activation; @gelu is for open_clip checkpoints",
                        s->path);
    KAC_TRY(kac_clip_load_from(clip, c, s));
    const kac_clip_config *cfg = kac_clip_config_of(*clip);
    if (!cfg->has_text || !cfg->has_vision)
        return KAC_FAIL(KAC_E_UNSUPPORTED, "%s is no CLIPModel with text and vision towers; a reward needs both",
                        s->path);
    return kac_preprocess_load(p, folder, (int)cfg->image_size);
}

kac_status kac_clip_files_open(kac_clip **clip, kac_preprocess *p, kac_ctx *c, const char *path) {
    int quick;
    kac_source s = {0};
    char *bare = cut_activation(&quick, path), *folder = bare == NULL ? NULL : kac_reward_folder(bare);
    *clip = NULL;
    kac_status status = folder == NULL ? KAC_E_MEMORY : kac_reward_source_open(&s, bare);
    if (status == KAC_OK) status = open_source(clip, p, c, &s, folder, quick);
    kac_source_close(&s);
    kac_free(folder), kac_free(bare);
    return status;
}

kac_status kac_clip_files_tokenizer(kac_tokenizer **t, const char *path) {
    static const char *const names[] = {"vocab.json", "tokenizer.json", "bpe_simple_vocab_16e6.txt.gz",
                                        "bpe_simple_vocab_16e6.txt"};
    int quick;
    char *bare = cut_activation(&quick, path), *folder = bare == NULL ? NULL : kac_reward_folder(bare);
    kac_status s = folder == NULL ? KAC_E_MEMORY : KAC_OK;
    int found = -1;
    for (int i = 0; i < KAC_COUNT_OF(names) && found < 0 && s == KAC_OK; i++) {
        char *file = kac_path_join(folder, names[i]);
        if (file == NULL) s = KAC_E_MEMORY;
        if (s == KAC_OK && kac_file_exists(file)) {
            found = i;
            s = kac_tokenizer_load(t, i < 2 ? folder : file);
        }
        kac_free(file);
    }
    if (s == KAC_OK && found < 0)
        s = KAC_FAIL(KAC_E_IO,
                     "%s holds no tokenizer: put vocab.json and merges.txt of the CLIP there (or OpenAI's %s)", folder,
                     names[2]);
    kac_free(folder), kac_free(bare);
    return s;
}
