/* Zip archives, read through a mapping: stored entries only, ZIP64 included. Nothing in the archive is trusted as a size. */
#ifndef KAC_IO_ZIP_H
#define KAC_IO_ZIP_H

#include "base/base.h"

typedef struct kac_zip_entry {
    char *name;
    const uint8_t *data; /* in the mapping; NULL when packed */
    size_t n;
    bool packed; /* compressed or encrypted: can be listed, not used */
} kac_zip_entry;

typedef struct kac_zip {
    kac_zip_entry *entries; /* sorted by name (bytes) */
    int n_entries;
} kac_zip;

/* Every entry lies inside the mapping, no two have one name. `path` is for messages. KAC_E_FORMAT for a broken or cut-off
 * archive. On failure *z is empty. */
kac_status kac_zip_open(kac_zip *z, kac_map map, const char *path);
void kac_zip_close(kac_zip *z);

/* NULL when there is none. */
const kac_zip_entry *kac_zip_find(const kac_zip *z, const char *name);
/* KAC_E_UNSUPPORTED for a packed entry. */
kac_status kac_zip_usable(const kac_zip_entry *e, const char *path);

#endif
