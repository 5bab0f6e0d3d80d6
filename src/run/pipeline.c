#include "run/pipeline.h"
#include "base/json.h"
#include <string.h>

/* dir/name/, or a message that says what a complete folder holds. */
static kac_status component_dir(char **out, const char *dir, const char *name) {
    *out = kac_path_join(dir, name);
    if (*out == NULL) return KAC_E_MEMORY;
    if (kac_dir_exists(*out)) return KAC_OK;
    kac_status s = KAC_FAIL(
        KAC_E_IO, "%s has no folder \"%s\"; a complete model folder has unet, vae, text_encoder, tokenizer, scheduler",
        dir, name);
    kac_free(*out);
    *out = NULL;
    return s;
}

/* What the components of model_index.json are named for; an absent one is null or [null, null]. */
static bool listed(const kac_json *index, const char *name) {
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(index->root, name);
    return cJSON_IsArray(v) && cJSON_IsString(cJSON_GetArrayItem(v, 1));
}

static kac_status check_class(const kac_json *index) {
    static const char *const known[] = {"StableDiffusionPipeline",
                                        "StableDiffusionImg2ImgPipeline",
                                        "StableDiffusionInpaintPipeline",
                                        "LatentConsistencyModelPipeline",
                                        "DDPMPipeline",
                                        "DDIMPipeline"};
    const char *name = NULL;
    KAC_TRY(kac_json_text(index, index->root, "_class_name", &name));
    if (name == NULL) return KAC_FAIL(KAC_E_FORMAT, "%s: \"_class_name\" is missing", index->name);
    for (int i = 0; i < KAC_COUNT_OF(known); i++)
        if (strcmp(name, known[i]) == 0) return KAC_OK;
    return KAC_FAIL(
        KAC_E_UNSUPPORTED,
        "%s: pipelines of class %s are not supported; StableDiffusionPipeline, DDPMPipeline and DDIMPipeline are",
        index->name, name);
}

static kac_status open_text(kac_pipeline *p, kac_ctx *c, const char *dir) {
    char *text_dir = NULL, *tokenizer_dir = NULL;
    kac_status s = component_dir(&text_dir, dir, "text_encoder");
    if (s == KAC_OK) s = component_dir(&tokenizer_dir, dir, "tokenizer");
    if (s == KAC_OK) s = kac_clip_load(&p->text, c, text_dir);
    if (s == KAC_OK) s = kac_tokenizer_load(&p->tokenizer, tokenizer_dir);
    kac_free(text_dir), kac_free(tokenizer_dir);
    if (s != KAC_OK) return s;
    const kac_clip_config *cfg = kac_clip_config_of(p->text);
    if (kac_tokenizer_vocab_size(p->tokenizer) > cfg->vocab_size)
        return KAC_FAIL(KAC_E_FORMAT, "%s: the tokenizer has %d entries, the text encoder only %lld", dir,
                        (int)kac_tokenizer_vocab_size(p->tokenizer), (long long)cfg->vocab_size);
    return KAC_OK;
}

static kac_status open_codecs(kac_pipeline *p, kac_ctx *c, const char *dir, const char *preview_dir) {
    char *vae = NULL;
    kac_status s = component_dir(&vae, dir, "vae");
    if (s == KAC_OK) s = kac_codec_load(&p->codec, c, vae);
    kac_free(vae);
    if (s == KAC_OK && preview_dir != NULL) s = kac_codec_load(&p->preview, c, preview_dir);
    if (s != KAC_OK) return s;
    const kac_codec_config *v = kac_codec_config_of(p->codec),
                           *t = p->preview == NULL ? v : kac_codec_config_of(p->preview);
    if (t->latent_channels != v->latent_channels || t->factor != v->factor)
        return KAC_FAIL(KAC_E_USAGE,
                        "the preview decoder %s is made for other latents: %lld channels, factor %lld; this model has "
                        "%lld and %lld",
                        preview_dir, (long long)t->latent_channels, (long long)t->factor, (long long)v->latent_channels,
                        (long long)v->factor);
    if (v->out_channels != 3)
        return KAC_FAIL(KAC_E_UNSUPPORTED, "%s/vae makes pictures of %lld channels, not 3", dir,
                        (long long)v->out_channels);
    return KAC_OK;
}

/* Networks that read the state alone, or also a mask and the masked picture. */
static kac_status check_channels(kac_pipeline *p, const char *dir) {
    const kac_unet_config *u = kac_unet_config_of(p->unet);
    const int64_t latent = p->codec == NULL ? 3 : kac_codec_config_of(p->codec)->latent_channels;
    p->channels = latent;
    if (u->out_channels == latent && u->in_channels == latent) return KAC_OK;
    if (p->codec != NULL && u->out_channels == latent && kac_pipeline_repaints(p)) return KAC_OK;
    if (p->codec != NULL && u->out_channels == latent && u->in_channels == 2 * latent)
        return KAC_FAIL(KAC_E_UNSUPPORTED,
                        "%s: a network with in_channels %lld edits pictures by instruction (InstructPix2Pix), which is "
                        "not supported; in_channels %lld (from text) and %lld (inpainting) are",
                        dir, (long long)u->in_channels, (long long)latent, (long long)(2 * latent + 1));
    return KAC_FAIL(KAC_E_UNSUPPORTED, "%s: the network maps %lld to %lld channels, %lld to %lld are needed", dir,
                    (long long)u->in_channels, (long long)u->out_channels, (long long)latent, (long long)latent);
}

bool kac_pipeline_repaints(const kac_pipeline *p) {
    return kac_unet_config_of(p->unet)->in_channels == 2 * p->channels + 1;
}

static kac_status open_parts(kac_pipeline *p, kac_ctx *c, const char *dir, const char *preview_dir,
                             const kac_json *index) {
    KAC_TRY(check_class(index));
    char *unet = NULL, *scheduler = kac_path_join(dir, "scheduler/scheduler_config.json");
    kac_status s = scheduler == NULL ? KAC_E_MEMORY : component_dir(&unet, dir, "unet");
    if (s == KAC_OK) s = kac_schedule_load(&p->schedule, scheduler);
    if (s == KAC_OK && listed(index, "text_encoder")) s = open_text(p, c, dir);
    if (s == KAC_OK) s = kac_unet_load(&p->unet, c, unet);
    if (s == KAC_OK && listed(index, "vae")) s = open_codecs(p, c, dir, preview_dir);
    kac_free(unet), kac_free(scheduler);
    if (s != KAC_OK) return s;
    const kac_unet_config *u = kac_unet_config_of(p->unet);
    p->factor = p->codec == NULL ? 1 : kac_codec_config_of(p->codec)->factor;
    p->height = u->sample_size[0] * p->factor, p->width = u->sample_size[1] * p->factor;
    KAC_TRY(check_channels(p, dir));
    if (u->conditional && p->text == NULL)
        return KAC_FAIL(KAC_E_FORMAT, "%s: the network wants a text encoder, model_index.json lists none", dir);
    return KAC_OK;
}

kac_status kac_pipeline_open(kac_pipeline *p, kac_ctx *c, const char *dir, const char *preview_dir) {
    *p = (kac_pipeline){0};
    if (!kac_dir_exists(dir)) return KAC_FAIL(KAC_E_IO, "there is no model folder %s", dir);
    char *path = kac_path_join(dir, "model_index.json");
    if (path == NULL) return KAC_E_MEMORY;
    kac_json index = {0};
    kac_status s = kac_file_exists(path)
                       ? kac_json_load(&index, path)
                       : KAC_FAIL(KAC_E_IO, "%s is no diffusers model folder: it has no model_index.json", dir);
    if (s == KAC_OK) s = open_parts(p, c, dir, preview_dir, &index);
    kac_json_free(&index);
    kac_free(path);
    if (s != KAC_OK) kac_pipeline_close(p);
    return s;
}

void kac_pipeline_close(kac_pipeline *p) {
    kac_clip_free(p->text);
    kac_tokenizer_free(p->tokenizer);
    kac_unet_free(p->unet);
    kac_codec_free(p->codec);
    kac_codec_free(p->preview);
    kac_schedule_free(&p->schedule);
    *p = (kac_pipeline){0};
}
