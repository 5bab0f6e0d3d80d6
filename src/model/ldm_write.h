/* The way back: networks of a diffusers folder under the names of a single file (model/ldm.h). */
#ifndef KAC_LDM_WRITE_H
#define KAC_LDM_WRITE_H

#include "model/source.h"

/* Appends the source's tensors to *out, which starts zeroed, under their original names; they stay views into the source, or are made
 * anew where several become one. kac_weights_close(out) before the source closes. KAC_E_UNSUPPORTED for what those names cannot say. */
kac_status kac_ldm_write_unet(kac_weights *out, const kac_source *s);
kac_status kac_ldm_write_vae(kac_weights *out, const kac_source *s);
/* prefix: "cond_stage_model.transformer." and the like for CLIP's names, "….model." for OpenCLIP's (open). */
kac_status kac_ldm_write_text(kac_weights *out, const kac_source *s, const char *prefix, bool open);

#endif
