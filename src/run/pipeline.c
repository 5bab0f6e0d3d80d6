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
                                        "StableDiffusionXLPipeline",
                                        "StableDiffusionXLImg2ImgPipeline",
                                        "StableDiffusionXLInpaintPipeline",
                                        "LatentConsistencyModelPipeline",
                                        "DDPMPipeline",
                                        "DDIMPipeline"};
    const char *name = NULL;
    KAC_TRY(kac_json_text(index, index->root, "_class_name", &name));
    if (name == NULL) return KAC_FAIL(KAC_E_FORMAT, "%s: \"_class_name\" is missing", index->name);
    for (int i = 0; i < KAC_COUNT_OF(known); i++)
        if (strcmp(name, known[i]) == 0) return KAC_OK;
    return KAC_FAIL(KAC_E_UNSUPPORTED,
                    "%s: pipelines of class %s are not supported; StableDiffusionPipeline, StableDiffusionXLPipeline, "
                    "LatentConsistencyModelPipeline, DDPMPipeline and DDIMPipeline are",
                    index->name, name);
}

static kac_status open_encoder(kac_pipeline_text *t, const char *dir, const char *encoder, const char *tokenizer) {
    char *text_dir = NULL, *tokenizer_dir = NULL;
    kac_status s = component_dir(&text_dir, dir, encoder);
    if (s == KAC_OK) s = component_dir(&tokenizer_dir, dir, tokenizer);
    if (s == KAC_OK) s = kac_source_open_dir(&t->source, text_dir, "model");
    if (s == KAC_OK) s = kac_clip_config_read(&t->cfg, &t->source.config);
    if (s == KAC_OK) s = kac_tokenizer_load(&t->tokenizer, tokenizer_dir);
    kac_free(text_dir), kac_free(tokenizer_dir);
    if (s != KAC_OK) return s;
    if (kac_tokenizer_vocab_size(t->tokenizer) > t->cfg.vocab_size)
        return KAC_FAIL(KAC_E_FORMAT, "%s: %s has %d entries, %s only %lld", dir, tokenizer,
                        (int)kac_tokenizer_vocab_size(t->tokenizer), encoder, (long long)t->cfg.vocab_size);
    const int own = kac_tokenizer_max_length(t->tokenizer);
    t->n_tokens = own > 0 ? KAC_MIN(own, t->cfg.max_tokens) : t->cfg.max_tokens;
    return KAC_OK;
}

/* Those of text_encoder and text_encoder_2 that the folder lists. */
static kac_status open_texts(kac_pipeline *p, const char *dir, const kac_json *index) {
    static const char *const encoder[] = {"text_encoder", "text_encoder_2"}, *const tokenizer[] = {"tokenizer",
                                                                                                   "tokenizer_2"};
    for (int i = 0; i < KAC_PIPELINE_MAX_TEXTS; i++)
        if (listed(index, encoder[i])) KAC_TRY(open_encoder(&p->text[p->n_texts++], dir, encoder[i], tokenizer[i]));
    if (p->n_texts == 2 && p->text[0].n_tokens != p->text[1].n_tokens)
        return KAC_FAIL(KAC_E_FORMAT, "%s: the two text encoders read %lld and %lld tokens; they must agree", dir,
                        (long long)p->text[0].n_tokens, (long long)p->text[1].n_tokens);
    const char *name = NULL;
    KAC_TRY(kac_json_text(index, index->root, "_class_name", &name));
    p->zero_empty = strncmp(name, "StableDiffusionXL", 17) == 0;
    return kac_json_bool(index, index->root, "force_zeros_for_empty_prompt", &p->zero_empty);
}

/* What the denoiser wants and what the text encoders give. */
static kac_status check_texts(const kac_pipeline *p, const char *dir) {
    const kac_unet_config *u = kac_unet_config_of(p->unet);
    if (!u->conditional) return KAC_OK;
    if (p->n_texts == 0)
        return KAC_FAIL(KAC_E_FORMAT, "%s: the network wants a text encoder, model_index.json lists none", dir);
    if (u->class_embed != KAC_CLASS_EMBED_NONE || u->addition == KAC_ADDITION_TEXT)
        return KAC_FAIL(KAC_E_UNSUPPORTED, "%s: a network with %s is not supported in whole pipelines", dir,
                        u->addition == KAC_ADDITION_TEXT ? "addition_embed_type text" : "class labels");
    const bool two = u->addition == KAC_ADDITION_TEXT_TIME;
    if (!two && p->n_texts > 1)
        return KAC_FAIL(KAC_E_FORMAT, "%s: two text encoders, but the network has no addition_embed_type", dir);
    int64_t width = 0;
    for (int i = 0; i < p->n_texts; i++) width += p->text[i].cfg.text.width;
    const int64_t want = u->text_dim > 0 ? u->text_dim : u->cross_dim[0];
    if (width != want)
        return KAC_FAIL(KAC_E_FORMAT, "%s: the text encoders make states of width %lld, the network wants %lld", dir,
                        (long long)width, (long long)want);
    return KAC_OK;
}

static kac_status load_vae(kac_pipeline *p, kac_ctx *c, const char *dir, const char *other) {
    if (other == NULL) {
        char *vae = NULL;
        kac_status s = component_dir(&vae, dir, "vae");
        if (s == KAC_OK) s = kac_codec_load(&p->codec, c, vae);
        kac_free(vae);
        return s;
    }
    KAC_TRY(kac_codec_load(&p->codec, c, other));
    const int64_t has = kac_codec_config_of(p->codec)->latent_channels,
                  want = kac_unet_config_of(p->unet)->out_channels;
    if (has == want || 2 * has == want) return KAC_OK; /* twice: with a learned variance */
    return KAC_FAIL(KAC_E_USAGE, "--vae %s is made for latents of %lld channels, this model's have %lld", other,
                    (long long)has, (long long)want);
}

static kac_status open_codecs(kac_pipeline *p, kac_ctx *c, const char *dir, const kac_pipeline_options *o) {
    KAC_TRY(load_vae(p, c, dir, o->vae));
    if (o->preview != NULL) KAC_TRY(kac_codec_load(&p->preview, c, o->preview));
    const kac_codec_config *v = kac_codec_config_of(p->codec),
                           *t = p->preview == NULL ? v : kac_codec_config_of(p->preview);
    if (t->latent_channels != v->latent_channels || t->factor != v->factor)
        return KAC_FAIL(KAC_E_USAGE,
                        "the preview decoder %s is made for other latents: %lld channels, factor %lld; this model has "
                        "%lld and %lld",
                        o->preview, (long long)t->latent_channels, (long long)t->factor, (long long)v->latent_channels,
                        (long long)v->factor);
    if (v->out_channels != 3)
        return KAC_FAIL(KAC_E_UNSUPPORTED, "the autoencoder of %s makes pictures of %lld channels, not 3",
                        o->vae == NULL ? dir : o->vae, (long long)v->out_channels);
    return KAC_OK;
}

/* Networks that read the state alone, or also a mask and the masked picture. */
static kac_status check_channels(kac_pipeline *p, const char *dir) {
    const kac_unet_config *u = kac_unet_config_of(p->unet);
    const int64_t latent = p->codec == NULL ? 3 : kac_codec_config_of(p->codec)->latent_channels;
    p->channels = latent;
    if (u->out_channels == latent && u->in_channels == latent) return KAC_OK;
    const bool learned = p->schedule.variance >= KAC_VARIANCE_LEARNED;
    if (u->out_channels == 2 * latent && u->in_channels == latent && learned) return KAC_OK;
    if (learned)
        return KAC_FAIL(
            KAC_E_UNSUPPORTED,
            "%s: the scheduler's variance_type is learned, which wants %lld output channels of the network, "
            "not %lld",
            dir, (long long)(2 * latent), (long long)u->out_channels);
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

static kac_status open_parts(kac_pipeline *p, kac_ctx *c, const char *dir, const kac_pipeline_options *o,
                             const kac_json *index) {
    KAC_TRY(check_class(index));
    char *unet = NULL, *scheduler = kac_path_join(dir, "scheduler/scheduler_config.json");
    kac_status s = scheduler == NULL ? KAC_E_MEMORY : component_dir(&unet, dir, "unet");
    if (s == KAC_OK) s = kac_schedule_load(&p->schedule, scheduler);
    if (s == KAC_OK) s = open_texts(p, dir, index);
    if (s == KAC_OK) s = kac_unet_load(&p->unet, c, unet);
    if (s == KAC_OK && (listed(index, "vae") || o->vae != NULL)) s = open_codecs(p, c, dir, o);
    kac_free(unet), kac_free(scheduler);
    if (s != KAC_OK) return s;
    const kac_unet_config *u = kac_unet_config_of(p->unet);
    p->factor = p->codec == NULL ? 1 : kac_codec_config_of(p->codec)->factor;
    p->height = u->sample_size[0] * p->factor, p->width = u->sample_size[1] * p->factor;
    KAC_TRY(check_channels(p, dir));
    return check_texts(p, dir);
}

kac_status kac_pipeline_open(kac_pipeline *p, kac_ctx *c, const char *dir, const kac_pipeline_options *o) {
    *p = (kac_pipeline){0};
    if (!kac_dir_exists(dir)) return KAC_FAIL(KAC_E_IO, "there is no model folder %s", dir);
    char *path = kac_path_join(dir, "model_index.json");
    if (path == NULL) return KAC_E_MEMORY;
    kac_json index = {0};
    kac_status s = kac_file_exists(path)
                       ? kac_json_load(&index, path)
                       : KAC_FAIL(KAC_E_IO, "%s is no diffusers model folder: it has no model_index.json", dir);
    if (s == KAC_OK) s = open_parts(p, c, dir, o == NULL ? &(kac_pipeline_options){0} : o, &index);
    kac_json_free(&index);
    kac_free(path);
    if (s != KAC_OK) kac_pipeline_close(p);
    return s;
}

void kac_pipeline_close(kac_pipeline *p) {
    for (int i = 0; i < p->n_texts; i++) {
        kac_source_close(&p->text[i].source);
        kac_tokenizer_free(p->text[i].tokenizer);
    }
    kac_unet_free(p->unet);
    kac_codec_free(p->codec);
    kac_codec_free(p->preview);
    kac_schedule_free(&p->schedule);
    *p = (kac_pipeline){0};
}
