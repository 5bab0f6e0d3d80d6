#include "model/source.h"
#include "model/config.h"
#include "model/source_tiny.h"
#include "nn/lora.h"
#include <string.h>

kac_status kac_source_open_variant(kac_source *s, const char *dir, const char *stem, const char *variant) {
    *s = (kac_source){.path = kac_strdup(dir)};
    kac_status status = s->path == NULL ? KAC_E_MEMORY : kac_config_open(&s->config, dir);
    if (status == KAC_OK) status = kac_weights_open_variant(&s->weights, dir, stem, variant);
    if (status != KAC_OK) kac_source_close(s);
    return status;
}

kac_status kac_source_open_dir(kac_source *s, const char *dir, const char *stem) {
    return kac_source_open_variant(s, dir, stem, NULL);
}

kac_status kac_source_of(kac_source *s, const kac_ldm *m, const char *component) {
    *s = (kac_source){.path = kac_format("%s (%s)", m->file->path, component)};
    const kac_status status =
        s->path == NULL ? KAC_E_MEMORY : kac_ldm_open(&s->weights, &s->config, m, component, s->path);
    if (status != KAC_OK) kac_source_close(s);
    return status;
}

static kac_status open_file(kac_source *s, const char *path, const char *component) {
    kac_weights file;
    kac_ldm ldm;
    *s = (kac_source){0};
    KAC_TRY(kac_weights_open(&file, path));
    kac_status status = kac_ldm_examine(&ldm, &file);
    if (status == KAC_E_UNSUPPORTED && strcmp(component, "vae") == 0) {
        kac_weights_close(&file);
        return kac_source_open_tiny(s, path);
    }
    if (status == KAC_OK) status = kac_source_of(s, &ldm, component);
    if (status == KAC_OK)
        s->file = file;
    else
        kac_weights_close(&file);
    return status;
}

static bool has_config(const char *dir) {
    char *path = kac_path_join(dir, "config.json");
    const bool found = path != NULL && kac_file_exists(path);
    kac_free(path);
    return found;
}

kac_status kac_source_open(kac_source *s, const char *path, const char *component) {
    *s = (kac_source){0};
    if (!kac_dir_exists(path))
        return kac_file_exists(path) ? open_file(s, path, component)
                                     : KAC_FAIL(KAC_E_IO, "there is no folder or file %s", path);
    if (has_config(path)) return kac_source_open_dir(s, path, kac_source_stem(component));
    char *dir = kac_path_join(path, component);
    if (dir == NULL) return KAC_E_MEMORY;
    kac_status status;
    if (has_config(dir))
        status = kac_source_open_dir(s, dir, kac_source_stem(component));
    else if (strcmp(component, "vae") == 0)
        status = kac_source_open_tiny(s, path);
    else
        status = KAC_FAIL(KAC_E_IO, "%s holds neither config.json nor %s/config.json", path, component);
    kac_free(dir);
    return status;
}

void kac_source_close(kac_source *s) {
    kac_weights_close(&s->weights);
    kac_json_free(&s->config);
    kac_weights_close(&s->file);
    kac_free(s->path);
    *s = (kac_source){0};
}

kac_loader kac_source_loader(const kac_source *s, kac_ctx *c) {
    const kac_loader l = {.c = c,
                          .weights = &s->weights,
                          .path = s->path,
                          .lora = s->lora,
                          .lora_part = s->lora_part,
                          .parameters = s->parameters};
    kac_lora_begin(&l);
    return l;
}

const char *kac_source_stem(const char *component) {
    return strcmp(component, "unet") == 0 || strcmp(component, "vae") == 0 ? "diffusion_pytorch_model" : "model";
}
