#include "model/ldm.h"
#include "io/weights_file.h"
#include "model/ldm_names.h"
#include "tensor/convert.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

static bool has(const kac_weights *file, const char *prefix, const char *name) {
    char *all = kac_format("%s%s", prefix, name);
    const bool found = all != NULL && kac_weights_entry_of(file, all) != NULL;
    kac_free(all);
    return found;
}

/* The first prefix under which `name` is there; NULL: none. */
static const char *prefix_of(const kac_weights *file, const char *const *prefixes, int n, const char *name) {
    for (int i = 0; i < n; i++)
        if (has(file, prefixes[i], name)) return prefixes[i];
    return NULL;
}

static double deviation(const kac_weights *file, const kac_weights_entry *e) {
    kac_tensor t;
    if (kac_weights_view(file, e, &t) != KAC_OK) return 0;
    const int64_t n = kac_tensor_count(t);
    double mean = 0, square = 0;
    for (int64_t i = 0; i < n; i++) mean += kac_element_load(t.data, t.dtype, i) / (double)n;
    for (int64_t i = 0; i < n; i++) square += pow(kac_element_load(t.data, t.dtype, i) - mean, 2) / (double)n;
    return sqrt(square);
}

/* Files say it in their metadata or by an empty tensor; SD 2 says nothing, but the last attention of the 768-v weights differs
 * from the others by its norm's spread, and the training step of 2-1-base is known. */
static bool predicts_v(const kac_ldm *m) {
    const char *stated = kac_weights_metadata(m->file, "modelspec.prediction_type"),
               *step = kac_weights_metadata(m->file, "global_step");
    if (stated != NULL) return stated[0] == 'v';
    if (kac_weights_entry_of(m->file, "v_pred") != NULL) return true;
    if (m->family != KAC_LDM_SD2 || m->in_channels != 4 || (step != NULL && strcmp(step, "875000") == 0)) return false;
    const kac_ldm_names unet = {.in = m->file, .prefix = m->unet};
    const kac_weights_entry *e = kac_ldm_find(&unet, "output_blocks.11.1.transformer_blocks.0.norm1.bias");
    return e != NULL && deviation(m->file, e) > 0.09;
}

kac_status kac_ldm_examine(kac_ldm *m, const kac_weights *file) {
    static const char *const unets[] = {"model.diffusion_model.", "diffusion_model.", ""}, *const vaes[] = {
                                                                                               "first_stage_model.",
                                                                                               "vae.", ""};
    static const char open[] = "token_embedding.weight", inner[] = "text_model.embeddings.token_embedding.weight",
                      bare[] = "embeddings.token_embedding.weight";
    *m = (kac_ldm){.file = file};
    m->unet = prefix_of(file, unets, 3, "input_blocks.0.0.weight");
    m->vae = prefix_of(file, vaes, 3, "decoder.up.0.block.0.conv1.weight");
    static const char sd1[] = "cond_stage_model.transformer.", sd2[] = "cond_stage_model.model.",
                      xl1[] = "conditioner.embedders.0.transformer.", xl2[] = "conditioner.embedders.1.model.",
                      refiner[] = "conditioner.embedders.0.model.";
    if (has(file, xl2, open)) {
        m->family = KAC_LDM_XL;
        m->text_2 = xl2;
        if (has(file, xl1, inner) || has(file, xl1, bare)) m->text = xl1;
    } else if (has(file, refiner, open)) {
        m->family = KAC_LDM_REFINER;
        m->text_2 = refiner;
    } else if (has(file, sd2, open)) {
        m->family = KAC_LDM_SD2;
        m->text = sd2;
    } else if (has(file, sd1, inner) || has(file, sd1, bare)) {
        m->text = sd1;
    } else if (m->unet != NULL && has(file, m->unet, "label_emb.0.0.weight")) {
        m->family = KAC_LDM_XL;
    }
    m->has_unet = m->unet != NULL;
    m->has_vae = m->vae != NULL;
    m->has_text = m->text != NULL;
    m->has_text_2 = m->text_2 != NULL;
    if (!m->has_unet && !m->has_vae && !m->has_text && !m->has_text_2) {
        char shown[96];
        return KAC_FAIL(
            KAC_E_UNSUPPORTED,
            "%s holds no network under the names of Stable Diffusion 1, 2 or XL checkpoints (its first tensor "
            "is \"%s\"); a diffusers model is opened by its folder",
            file->path, file->n_entries > 0 ? kac_weights_shown(file->entries[0].name, shown) : "missing");
    }
    if (m->has_unet) {
        const kac_ldm_names unet = {.in = file, .prefix = m->unet};
        m->in_channels = kac_ldm_size(&unet, 1, "input_blocks.0.0.weight");
    }
    m->v_prediction = predicts_v(m);
    return KAC_OK;
}

/* Files that kac wrote hold the configurations as texts, which say what shapes cannot. */
static kac_status stated_config(kac_json *config, const kac_ldm *m, const char *component) {
    char *key = kac_format(KAC_LDM_CONFIG_KEY "%s", component);
    const char *text = key == NULL ? NULL : kac_weights_metadata(m->file, key);
    const bool no_memory = key == NULL;
    kac_free(key);
    if (text == NULL) return no_memory ? KAC_E_MEMORY : KAC_OK;
    kac_json stated;
    KAC_TRY(kac_json_parse(&stated, text, strlen(text), config->name));
    kac_json_free(config);
    *config = stated;
    return KAC_OK;
}

kac_status kac_ldm_open(kac_weights *weights, kac_json *config, const kac_ldm *m, const char *component,
                        const char *path) {
    const bool unet = strcmp(component, "unet") == 0, vae = strcmp(component, "vae") == 0,
               second = strcmp(component, "text_encoder_2") == 0,
               text = second || strcmp(component, "text_encoder") == 0;
    const char *prefix = unet ? m->unet : vae ? m->vae : second ? m->text_2 : text ? m->text : NULL;
    *weights = (kac_weights){0};
    *config = (kac_json){0};
    if (prefix == NULL) return KAC_FAIL(KAC_E_FORMAT, "%s holds no %s", m->file->path, component);
    weights->path = kac_strdup(path);
    config->root = cJSON_CreateObject();
    config->name = kac_strdup(path);
    kac_ldm_names n = {.in = m->file, .out = weights, .prefix = prefix, .path = m->file->path, .config = config->root};
    kac_status s = weights->path == NULL || config->root == NULL || config->name == NULL ? KAC_E_MEMORY : KAC_OK;
    if (s == KAC_OK) s = unet ? kac_ldm_unet(&n, m) : vae ? kac_ldm_vae(&n, m) : kac_ldm_text(&n, m, second);
    if (s == KAC_OK) s = stated_config(config, m, component);
    if (s != KAC_OK) kac_json_free(config);
    return kac_weights_opened(weights, s);
}

/* ---- the rest of a model folder ---- */

static void add_pair(cJSON *index, const char *name, const char *library, const char *class_name) {
    const char *const pair[] = {library, class_name};
    kac_ldm_add_texts(index, name, pair, 2);
}

kac_status kac_ldm_index(kac_json *index, const kac_ldm *m) {
    const bool xl = m->family == KAC_LDM_XL || m->family == KAC_LDM_REFINER, inpaint = m->in_channels > 4;
    cJSON *root = cJSON_CreateObject();
    *index = (kac_json){.root = root, .name = kac_strdup(m->file->path)};
    cJSON_AddStringToObject(root, "_class_name",
                            m->family == KAC_LDM_REFINER ? "StableDiffusionXLImg2ImgPipeline"
                            : xl && inpaint              ? "StableDiffusionXLInpaintPipeline"
                            : xl                         ? "StableDiffusionXLPipeline"
                            : inpaint                    ? "StableDiffusionInpaintPipeline"
                                                         : "StableDiffusionPipeline");
    if (m->has_unet) add_pair(root, "unet", "diffusers", "UNet2DConditionModel");
    if (m->has_vae) add_pair(root, "vae", "diffusers", "AutoencoderKL");
    if (m->has_text) {
        add_pair(root, "text_encoder", "transformers", "CLIPTextModel");
        add_pair(root, "tokenizer", "transformers", "CLIPTokenizer");
    }
    if (m->has_text_2) {
        add_pair(root, "text_encoder_2", "transformers", "CLIPTextModelWithProjection");
        add_pair(root, "tokenizer_2", "transformers", "CLIPTokenizer");
    }
    if (m->has_unet) add_pair(root, "scheduler", "diffusers", xl ? "EulerDiscreteScheduler" : "PNDMScheduler");
    if (xl) cJSON_AddBoolToObject(root, "force_zeros_for_empty_prompt", m->family == KAC_LDM_XL);
    if (m->family == KAC_LDM_REFINER) cJSON_AddBoolToObject(root, "requires_aesthetics_score", true);
    if (root != NULL && index->name != NULL) return KAC_OK;
    kac_json_free(index);
    return KAC_E_MEMORY;
}

kac_status kac_ldm_scheduler(kac_json *config, const kac_ldm *m) {
    const bool xl = m->family == KAC_LDM_XL || m->family == KAC_LDM_REFINER,
               ddim = m->family == KAC_LDM_SD2 && m->v_prediction;
    cJSON *root = cJSON_CreateObject();
    *config = (kac_json){.root = root, .name = kac_strdup(m->file->path)};
    cJSON_AddStringToObject(root, "_class_name",
                            xl     ? "EulerDiscreteScheduler"
                            : ddim ? "DDIMScheduler"
                                   : "PNDMScheduler");
    cJSON_AddNumberToObject(root, "num_train_timesteps", 1000);
    cJSON_AddNumberToObject(root, "beta_start", 0.00085);
    cJSON_AddNumberToObject(root, "beta_end", 0.012);
    cJSON_AddStringToObject(root, "beta_schedule", "scaled_linear");
    cJSON_AddStringToObject(root, "prediction_type", m->v_prediction ? "v_prediction" : "epsilon");
    cJSON_AddStringToObject(root, "timestep_spacing", "leading");
    cJSON_AddNumberToObject(root, "steps_offset", 1);
    if (xl && kac_weights_entry_of(m->file, "ztsnr") != NULL)
        cJSON_AddBoolToObject(root, "rescale_betas_zero_snr", true);
    if (!xl) cJSON_AddBoolToObject(root, "set_alpha_to_one", false);
    if (!xl && !ddim) cJSON_AddBoolToObject(root, "skip_prk_steps", true);
    if (ddim) cJSON_AddBoolToObject(root, "clip_sample", false);
    if (root == NULL || config->name == NULL) {
        kac_json_free(config);
        return KAC_E_MEMORY;
    }
    const kac_status s = stated_config(config, m, "scheduler");
    if (s != KAC_OK) {
        kac_json_free(config);
        return s;
    }
    cJSON_DeleteItemFromObjectCaseSensitive(config->root,
                                            "prediction_type"); /* the caller may have asked for another */
    cJSON_AddStringToObject(config->root, "prediction_type", m->v_prediction ? "v_prediction" : "epsilon");
    return KAC_OK;
}
