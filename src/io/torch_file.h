/* Files written by torch.save: .bin, .pt, .pth, .ckpt. */
#ifndef KAC_IO_TORCH_FILE_H
#define KAC_IO_TORCH_FILE_H

#include "io/weights.h"

/* Does the mapping begin like one: a zip archive, or the format before PyTorch 1.6? */
bool kac_torch_is_file(kac_map map);

/* The tensors of f->map as a fresh array (caller: kac_free, and own_name of each), whose `file` is 0. A nested dict's
 * tensors get dotted names; of a training checkpoint only what lies under "state_dict" ("params_ema", "params") is
 * listed. Plain values beside the tensors become f->header's metadata. Every tensor lies inside the file.
 *
 * KAC_E_FORMAT broken or without tensors; KAC_E_UNSUPPORTED for anything that is no tensor or plain value
 * (io/pickle.h), for TorchScript, compressed and big-endian files. */
kac_status kac_torch_read(kac_weights_file *f, kac_weights_entry **entries, int *n_entries);

#endif
