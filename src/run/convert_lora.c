#include "run/convert_lora.h"
#include "io/lora_names.h"
#include <string.h>

kac_status kac_convert_lora(kac_lora_written *r, const kac_convert_lora_args *a) {
    enum { SGM_LAYERS = 2 }; /* of every model whose LoRA files use the original names */
    kac_lora l;
    KAC_TRY(kac_lora_open(&l, a->in));
    kac_lora_resolve_sgm(&l, SGM_LAYERS);
    const kac_lora_write_args to = {.from = l.path, .to = a->out, .format = a->format, .dtype = a->dtype};
    const kac_status s =
        l.n_unknown > 0
            ? KAC_FAIL(KAC_E_FORMAT, "%s: %d of its keys belong to no UNet or CLIP text encoder (first: %.100s)",
                       l.path, l.n_unknown, l.unknown[0])
            : kac_lora_write(r, l.modules, l.n_modules, &to);
    kac_lora_close(&l);
    return s;
}

/* ---- what is it ---- */

static bool is_lora_key(const char *key) {
    static const char *const marks[] = {".lora_down.weight", ".lora_up.weight",   ".lora_A.",
                                        ".lora_B.",          ".lora.down.weight", ".lora_linear_layer.",
                                        "_lora.down.weight", ".hada_w",           ".lokr_w"};
    for (int i = 0; i < KAC_COUNT_OF(marks); i++)
        if (strstr(key, marks[i]) != NULL) return true;
    return false;
}

bool kac_convert_is_lora(const char *path) {
    if (kac_dir_exists(path)) {
        char *config = kac_path_join(path, "adapter_config.json"),
             *file = kac_path_join(path, "pytorch_lora_weights.safetensors");
        const bool is = config != NULL && file != NULL && (kac_file_exists(config) || kac_file_exists(file));
        kac_free(config), kac_free(file);
        return is;
    }
    kac_weights w = {0};
    bool is = false;
    if (kac_weights_open(&w, path) != KAC_OK) return false;
    for (int i = 0; i < w.n_entries && !is; i++) is = is_lora_key(w.entries[i].name);
    kac_weights_close(&w);
    return is;
}
