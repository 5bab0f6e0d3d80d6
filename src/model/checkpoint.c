#include "model/checkpoint.h"
#include "model/config.h"
#include <string.h>

static kac_status open_single(kac_checkpoint *m) {
    m->single = true;
    KAC_TRY(kac_weights_open(&m->file, m->path));
    KAC_TRY(kac_ldm_examine(&m->ldm, &m->file));
    if (m->prediction != NULL) m->ldm.v_prediction = m->prediction[0] == 'v';
    return kac_ldm_index(&m->index, &m->ldm);
}

static kac_status open_folder(kac_checkpoint *m) {
    char *path = kac_path_join(m->path, "model_index.json");
    if (path == NULL) return KAC_E_MEMORY;
    const kac_status s =
        kac_file_exists(path)
            ? kac_json_load(&m->index, path)
            : KAC_FAIL(KAC_E_IO, "%s is no diffusers model folder: it has no model_index.json", m->path);
    kac_free(path);
    return s;
}

static kac_status copy_text(char **out, const char *text) {
    *out = text == NULL ? NULL : kac_strdup(text);
    return text != NULL && *out == NULL ? KAC_E_MEMORY : KAC_OK;
}

static kac_status open_any(kac_checkpoint *m, const char *path, const kac_checkpoint_options *o) {
    KAC_TRY(copy_text(&m->path, path));
    KAC_TRY(copy_text(&m->variant, o->variant));
    KAC_TRY(copy_text(&m->prediction, o->prediction));
    if (o->prediction != NULL && strcmp(o->prediction, "epsilon") != 0 && strcmp(o->prediction, "v_prediction") != 0)
        return KAC_FAIL(KAC_E_USAGE, "the prediction type \"%s\" is unknown; epsilon and v_prediction are",
                        o->prediction);
    if (kac_dir_exists(path)) return open_folder(m);
    if (kac_file_exists(path)) return open_single(m);
    return KAC_FAIL(KAC_E_IO, "there is no model folder or file %s", path);
}

kac_status kac_checkpoint_open(kac_checkpoint *m, const char *path, const kac_checkpoint_options *o) {
    const kac_checkpoint_options none = {0};
    *m = (kac_checkpoint){0};
    const kac_status s = open_any(m, path, o == NULL ? &none : o);
    if (s != KAC_OK) kac_checkpoint_close(m);
    return s;
}

void kac_checkpoint_close(kac_checkpoint *m) {
    kac_json_free(&m->index);
    kac_weights_close(&m->file);
    kac_free(m->path);
    kac_free(m->variant);
    kac_free(m->prediction);
    *m = (kac_checkpoint){0};
}

/* An absent component is null or [null, null]. */
bool kac_checkpoint_has(const kac_checkpoint *m, const char *component) {
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(m->index.root, component);
    return cJSON_IsArray(v) && cJSON_IsString(cJSON_GetArrayItem(v, 1));
}

static kac_status component_dir(char **out, const kac_checkpoint *m, const char *name) {
    *out = kac_path_join(m->path, name);
    if (*out == NULL) return KAC_E_MEMORY;
    if (kac_dir_exists(*out)) return KAC_OK;
    const kac_status s = KAC_FAIL(
        KAC_E_IO, "%s has no folder \"%s\"; a complete model folder has unet, vae, text_encoder, tokenizer, scheduler",
        m->path, name);
    kac_free(*out);
    *out = NULL;
    return s;
}

kac_status kac_checkpoint_source(kac_source *s, const kac_checkpoint *m, const char *component) {
    *s = (kac_source){0};
    if (!m->single) {
        char *dir;
        KAC_TRY(component_dir(&dir, m, component));
        const kac_status status = kac_source_open_variant(s, dir, kac_source_stem(component), m->variant);
        kac_free(dir);
        return status;
    }
    return kac_source_of(s, &m->ldm, component);
}

kac_status kac_checkpoint_scheduler(kac_json *config, const kac_checkpoint *m) {
    *config = (kac_json){0};
    if (m->single) return kac_ldm_scheduler(config, &m->ldm);
    char *path = kac_path_join(m->path, "scheduler/scheduler_config.json");
    if (path == NULL) return KAC_E_MEMORY;
    kac_status s = kac_json_load(config, path);
    kac_free(path);
    if (s != KAC_OK || m->prediction == NULL) return s;
    cJSON_DeleteItemFromObjectCaseSensitive(config->root, "prediction_type");
    cJSON_AddStringToObject(config->root, "prediction_type", m->prediction);
    return KAC_OK;
}

kac_status kac_checkpoint_tokenizer(char **out, const kac_checkpoint *m, const char *component) {
    *out = NULL;
    return m->single ? KAC_OK : component_dir(out, m, component);
}
