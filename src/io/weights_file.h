/* Between the readers of single files, the openers of folders and kac_weights. */
#ifndef KAC_IO_WEIGHTS_FILE_H
#define KAC_IO_WEIGHTS_FILE_H

#include "io/weights.h"

/* Appends the tensors of one more file, unsorted. `path` is taken over; NULL: KAC_E_MEMORY. */
kac_status kac_weights_add_file(kac_weights *s, char *path);
/* By name; KAC_E_FORMAT for two tensors of one name. */
kac_status kac_weights_sort(kac_weights *s);
/* Ends an opening: sorts, and closes *s when `status` or that is a failure. */
kac_status kac_weights_opened(kac_weights *s, kac_status status);

#endif
