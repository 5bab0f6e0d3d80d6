/* --original-size, --crop-top-left, --target-size, --aesthetic-score and their negative twins. */
#ifndef KAC_SIZE_OPTIONS_H
#define KAC_SIZE_OPTIONS_H

#include "run/latent_process.h"
#include <kac/options.h>

/* Fills sizes and negative_sizes. The negative ones are as the others unless given (the score has a default of its own). */
kac_status kac_size_options_read(kac_latent_options *out, const kac_options *o);

#endif
