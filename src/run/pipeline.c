#include "run/pipeline.h"
#include "base/json.h"
#include <string.h>

static kac_status check_class(const kac_json *index) {
    static const char *const known[] = {"StableDiffusionPipeline",
                                        "StableDiffusionImg2ImgPipeline",
                                        "StableDiffusionInpaintPipeline",
                                        "StableDiffusionXLPipeline",
                                        "StableDiffusionXLImg2ImgPipeline",
                                        "StableDiffusionXLInpaintPipeline",
                                        "LatentConsistencyModelPipeline",
                                        "LatentConsistencyModelImg2ImgPipeline",
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

/* A single file has no tokenizer: it is CLIP's, whose list of merges `fallback` is. OpenCLIP's towers are
 * padded by 0 ("!"), CLIP's by the end of text. */
static kac_status open_tokenizer(kac_tokenizer **out, const kac_checkpoint *m, const char *name, const char *fallback) {
    char *dir;
    KAC_TRY(kac_checkpoint_tokenizer(&dir, m, name));
    if (dir == NULL && fallback == NULL)
        return KAC_FAIL(KAC_E_USAGE, "%s has no tokenizer: name CLIP's list of merges", m->path);
    kac_status s = kac_tokenizer_load(out, dir != NULL ? dir : fallback);
    const bool open = strcmp(name, "tokenizer_2") == 0 || m->ldm.family == KAC_LDM_SD2;
    if (s == KAC_OK && dir == NULL)
        s = open ? kac_tokenizer_set_pad(*out, 0, "!") : kac_tokenizer_set_pad(*out, kac_tokenizer_eos(*out), NULL);
    kac_free(dir);
    return s;
}

static kac_status note_file(kac_pipeline *p, const char *path) {
    for (int i = 0; i < p->n_files; i++)
        if (strcmp(p->files[i], path) == 0) return KAC_OK;
    if (p->n_files == KAC_PIPELINE_MAX_FILES) return KAC_OK;
    p->files[p->n_files] = kac_strdup(path);
    return p->files[p->n_files++] == NULL ? KAC_E_MEMORY : KAC_OK;
}

/* A component of the model, its files noted. */
static kac_status open_source(kac_source *s, kac_pipeline *p, const char *component) {
    KAC_TRY(kac_checkpoint_source(s, &p->model, component));
    const kac_weights *w = p->model.single ? &p->model.file : &s->weights;
    kac_status status = KAC_OK;
    for (int i = 0; i < w->n_files && status == KAC_OK; i++) status = note_file(p, w->files[i].path);
    if (status != KAC_OK) kac_source_close(s);
    return status;
}

static kac_status open_encoder(kac_pipeline *p, kac_pipeline_text *t, const char *encoder, const char *tokenizer,
                               const char *fallback) {
    const char *dir = p->model.path;
    KAC_TRY(open_source(&t->source, p, encoder));
    KAC_TRY(kac_clip_config_read(&t->cfg, &t->source.config));
    KAC_TRY(open_tokenizer(&t->tokenizer, &p->model, tokenizer, fallback));
    if (kac_tokenizer_vocab_size(t->tokenizer) > t->cfg.vocab_size)
        return KAC_FAIL(KAC_E_FORMAT, "%s: %s has %d entries, %s only %lld", dir, tokenizer,
                        (int)kac_tokenizer_vocab_size(t->tokenizer), encoder, (long long)t->cfg.vocab_size);
    const int own = kac_tokenizer_max_length(t->tokenizer);
    t->n_tokens = own > 0 ? KAC_MIN(own, t->cfg.max_tokens) : t->cfg.max_tokens;
    return KAC_OK;
}

/* The text encoders' share of what is added: their loading is told later, the tokenizers know the new tokens from now on. */
static kac_status add_extras(kac_pipeline *p, const kac_pipeline_options *o) {
    const kac_inversion_set *set = o->embeddings;
    for (int i = 0; i < p->n_texts; i++) {
        kac_pipeline_text *t = &p->text[i];
        t->source.lora = o->lora, t->source.lora_part = i == 0 ? KAC_LORA_TEXT : KAC_LORA_TEXT_2;
        if (set == NULL) continue;
        KAC_TRY(kac_inversion_set_check(set, i, p->n_texts, t->cfg.text.width));
        t->source.embeddings = set;
        int64_t id = t->cfg.vocab_size;
        for (int k = 0; k < set->n; id += set->list[k++].n) {
            const kac_status s = kac_tokenizer_add(t->tokenizer, set->list[k].token, (int32_t)id, set->list[k].n);
            if (s != KAC_OK) return kac_fail_prefix(s, "%s", set->list[k].path);
        }
    }
    return set == NULL || p->n_texts > 0
               ? KAC_OK
               : KAC_FAIL(KAC_E_USAGE, "this model is unconditional: it takes no --embedding");
}

/* Those of text_encoder and text_encoder_2 that the folder lists. */
static kac_status open_texts(kac_pipeline *p, const char *fallback) {
    static const char *const encoder[] = {"text_encoder", "text_encoder_2"}, *const tokenizer[] = {"tokenizer",
                                                                                                   "tokenizer_2"};
    for (int i = 0; i < KAC_PIPELINE_MAX_TEXTS; i++)
        if (kac_checkpoint_has(&p->model, encoder[i]))
            KAC_TRY(open_encoder(p, &p->text[p->n_texts++], encoder[i], tokenizer[i], fallback));
    if (p->n_texts == 2 && p->text[0].n_tokens != p->text[1].n_tokens)
        return KAC_FAIL(KAC_E_FORMAT, "%s: the two text encoders read %lld and %lld tokens; they must agree",
                        p->model.path, (long long)p->text[0].n_tokens, (long long)p->text[1].n_tokens);
    const char *name = NULL;
    const kac_json *index = &p->model.index;
    KAC_TRY(kac_json_text(index, index->root, "_class_name", &name));
    p->zero_empty = strncmp(name, "StableDiffusionXL", 17) == 0;
    p->consistency = strncmp(name, "LatentConsistencyModel", 22) == 0;
    return kac_json_bool(index, index->root, "force_zeros_for_empty_prompt", &p->zero_empty);
}

/* What the denoiser wants and what the text encoders give. */
static kac_status check_texts(const kac_pipeline *p, const char *dir) {
    const kac_unet_config *u = kac_unet_config_of(p->unet);
    if (u->class_embed != KAC_CLASS_EMBED_NONE || u->addition == KAC_ADDITION_TEXT)
        return KAC_FAIL(KAC_E_UNSUPPORTED, "%s: a network with %s is not supported in whole pipelines", dir,
                        u->addition == KAC_ADDITION_TEXT ? "addition_embed_type text" : "class labels");
    if (!u->conditional) return KAC_OK;
    if (p->n_texts == 0)
        return KAC_FAIL(KAC_E_FORMAT, "%s: the network wants a text encoder, model_index.json lists none", dir);
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

static kac_status load_vae(kac_pipeline *p, kac_ctx *c, const char *other) {
    if (other == NULL) {
        kac_source vae;
        KAC_TRY(open_source(&vae, p, "vae"));
        const kac_status s = kac_codec_load_from(&p->codec, c, &vae);
        kac_source_close(&vae);
        return s;
    }
    KAC_TRY(note_file(p, other));
    KAC_TRY(kac_codec_load(&p->codec, c, other));
    const int64_t has = kac_codec_config_of(p->codec)->latent_channels,
                  want = kac_unet_config_of(p->unet)->out_channels;
    if (has == want || 2 * has == want) return KAC_OK; /* twice: with a learned variance */
    return KAC_FAIL(KAC_E_USAGE, "--vae %s is made for latents of %lld channels, this model's have %lld", other,
                    (long long)has, (long long)want);
}

static kac_status open_codecs(kac_pipeline *p, kac_ctx *c, const char *dir, const kac_pipeline_options *o) {
    KAC_TRY(load_vae(p, c, o->vae));
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
    const int64_t shown = u->in_channels == 1 ? 1 : 3; /* greys or colours, where states are pictures themselves */
    const int64_t latent = p->codec == NULL ? shown : kac_codec_config_of(p->codec)->latent_channels;
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

static kac_status open_schedule(kac_pipeline *p) {
    kac_json config;
    KAC_TRY(kac_checkpoint_scheduler(&config, &p->model));
    char *text = cJSON_PrintUnformatted(config.root);
    const kac_status s =
        text == NULL ? KAC_E_MEMORY : kac_schedule_parse(&p->schedule, text, strlen(text), config.name);
    cJSON_free(text);
    kac_json_free(&config);
    return s;
}

static kac_status open_parts(kac_pipeline *p, kac_ctx *c, const kac_pipeline_options *o) {
    const char *dir = p->model.path;
    kac_source unet;
    KAC_TRY(check_class(&p->model.index));
    KAC_TRY(open_schedule(p));
    KAC_TRY(open_texts(p, o->merges));
    KAC_TRY(add_extras(p, o));
    KAC_TRY(open_source(&unet, p, "unet"));
    unet.lora = o->lora, unet.lora_part = KAC_LORA_UNET, unet.parameters = o->parameters;
    const kac_status s = kac_unet_load_from(&p->unet, c, &unet);
    kac_source_close(&unet);
    KAC_TRY(s);
    if (kac_checkpoint_has(&p->model, "vae") || o->vae != NULL) KAC_TRY(open_codecs(p, c, dir, o));
    const kac_unet_config *u = kac_unet_config_of(p->unet);
    p->factor = p->codec == NULL ? 1 : kac_codec_config_of(p->codec)->factor;
    p->height = u->sample_size[0] * p->factor, p->width = u->sample_size[1] * p->factor;
    KAC_TRY(check_channels(p, dir));
    return check_texts(p, dir);
}

kac_status kac_pipeline_open(kac_pipeline *p, kac_ctx *c, const char *path, const kac_pipeline_options *o) {
    const kac_pipeline_options none = {0};
    *p = (kac_pipeline){0};
    if (o == NULL) o = &none;
    kac_status s = kac_checkpoint_open(&p->model, path, &o->checkpoint);
    if (s == KAC_OK) s = open_parts(p, c, o);
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
    kac_checkpoint_close(&p->model);
    for (int i = 0; i < p->n_files; i++) kac_free(p->files[i]);
    *p = (kac_pipeline){0};
}
