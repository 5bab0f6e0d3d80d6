/* Tiny autoencoders as their author publishes them (TAESD and its relatives): the halves in two files, layers by bare numbers, no
 * config.json. Source: madebyollin/taesd. */
#ifndef KAC_SOURCE_TINY_H
#define KAC_SOURCE_TINY_H

#include "model/source.h"

/* path: a folder with one *encoder* and one *decoder* file (.safetensors or .pth); one of these files, whose partner lies beside it under
 * the same name but for that word; or one file with both halves under diffusers' names. The encoder may be missing. *s then reads as a
 * diffusers folder of an AutoencoderTiny, its config inferred from the tensors. KAC_E_IO, KAC_E_FORMAT: nothing of that kind. */
kac_status kac_source_open_tiny(kac_source *s, const char *path);

#endif
