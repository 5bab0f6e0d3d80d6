#include "io/weights_file.h"
#include <string.h>

kac_status kac_weights_open_parts(kac_weights *s, const char *path, const char *const *files, int n_files,
                                  kac_weights_part_name *name) {
    *s = (kac_weights){.path = kac_strdup(path)};
    kac_status status = s->path == NULL ? KAC_E_MEMORY : KAC_OK;
    for (int i = 0; i < n_files && status == KAC_OK; i++) {
        const int before = s->n_entries;
        status = kac_weights_add_file(s, kac_strdup(files[i]));
        for (int k = before; k < s->n_entries && status == KAC_OK; k++) {
            kac_weights_entry *e = &s->entries[k];
            char *own = name(i, e->name);
            if (own == NULL) status = KAC_E_MEMORY;
            kac_free(e->own_name);
            e->name = e->own_name = own;
        }
    }
    return kac_weights_opened(s, status);
}
