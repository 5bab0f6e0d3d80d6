/* A CLIP for a reward, from whatever people have: network, preprocessing, tokenizer. */
#ifndef KAC_CLIP_FILES_H
#define KAC_CLIP_FILES_H

#include "model/clip.h"
#include "reward/preprocess.h"
#include "text/tokenizer.h"

/* `path` is a CLIPModel folder of transformers (its preprocessor_config.json says how pictures are prepared), or a checkpoint in open_clip's names:
 * a file, or a folder with one. open_clip_config.json beside it says what the shapes do not (activation, heads, preprocessing); without it the
 * activation is exact GELU, or PATH@quick_gelu says otherwise. KAC_E_FORMAT with what was found when it is no CLIP. */
kac_status kac_clip_files_open(kac_clip **clip, kac_preprocess *p, kac_ctx *c, const char *path);

/* The folder's tokenizer (transformers' files, or bpe_simple_vocab_16e6.txt[.gz]). */
kac_status kac_clip_files_tokenizer(kac_tokenizer **t, const char *path);

#endif
