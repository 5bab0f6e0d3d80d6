#include "model/source.h"
#include "model/config.h"

kac_status kac_source_open_dir(kac_source *s, const char *dir, const char *stem) {
    *s = (kac_source){.path = kac_strdup(dir)};
    kac_status status = s->path == NULL ? KAC_E_MEMORY : kac_config_open(&s->config, dir);
    if (status == KAC_OK) status = kac_weights_open_dir(&s->weights, dir, stem);
    if (status != KAC_OK) kac_source_close(s);
    return status;
}

void kac_source_close(kac_source *s) {
    kac_weights_close(&s->weights);
    kac_json_free(&s->config);
    kac_free(s->path);
    *s = (kac_source){0};
}
