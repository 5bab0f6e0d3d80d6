/* A file that appears at its path whole or not at all: written to a temporary file beside it, synced, renamed.
 * kac_file_write is the same for data that lies in memory already. */
#ifndef KAC_STAGED_H
#define KAC_STAGED_H

#include "base.h"

typedef struct kac_staged {
    char *path, *temporary;
    int fd;
} kac_staged;

/* Refuses an existing path that is not a regular file. KAC_E_IO. On failure there is nothing to cancel. */
kac_status kac_staged_open(kac_staged *f, const char *path);
/* On failure the file is cancelled. */
kac_status kac_staged_add(kac_staged *f, const void *data, size_t n_bytes);
/* Ends the file either way. */
kac_status kac_staged_commit(kac_staged *f);
/* Removes the temporary file; an old file at the path stays as it was. May be called after a failure. */
void kac_staged_cancel(kac_staged *f);

#endif
