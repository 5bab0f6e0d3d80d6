/* The latent diffusion process: kac_process over a pipeline.
 *
 * A slot holds x, the network's guided output, x0-hat and the solver's history; each state carries an id, so that copies share every
 * result. The denoiser is called once per distinct state, in batches of at most `batch` states; prompts' keys and values were computed
 * once. Decoded pictures are kept per slot until the state changes. */
#ifndef KAC_LATENT_PROCESS_H
#define KAC_LATENT_PROCESS_H

#include "run/latent_texts.h"
#include "samplers/solver.h"
#include <kac/process.h>
#include <kac/reward.h>

/* What states begin from instead of pure noise. Pictures have the run's size and must outlive the process. */
typedef struct kac_latent_start {
    const uint8_t *rgb;  /* [height, width, 3]: image to image; NULL: pure noise, and nothing below is read */
    const uint8_t *mask; /* [height, width], not 0: repainted; 0: stays the picture. NULL: everything is repainted */
    bool mean;       /* the encoder's mean; false: each particle has a draw from its distribution, where it has one */
    bool from_noise; /* states begin as pure noise all the same (inpainting at full strength) */
    bool paste;      /* decoded pictures get the pixels outside of the mask back */
} kac_latent_start;

typedef struct kac_latent_options {
    const char *const *prompts;          /* [n_groups]; ignored by an unconditional pipeline */
    const char *const *negative_prompts; /* [n_groups]; NULL, there or inside: none was given */
    int n_groups, n_per_group;
    int64_t width, height; /* pixels, multiples of the pipeline's factor */
    double cfg_scale;      /* up to 1: no guidance, one evaluation a state instead of two */
    double guidance_rescale;
    uint64_t seed;
    int first_particle; /* particle k of every group uses the noise of particle first_particle + k */
    int batch;          /* states per network call */
    bool guided;        /* the process can pull and shift (process.h); costs room for one more row a slot, and a tape */
    kac_encode_options text;
    kac_latent_sizes sizes, negative_sizes; /* ignored by networks that do not read them */
    kac_latent_start start;                 /* with a picture, the solver's rows begin where its strength says */
    kac_tensor noise; /* [n_steps, n_slots, h, w, channels] f32: what each row's noise is, instead of drawn by seed;
                         data NULL: drawn */
} kac_latent_options;

typedef struct kac_latent_counts {
    int64_t nfe;      /* states evaluated, by a backward pass too: with and without the prompt counts once */
    int64_t denoiser; /* network evaluations: states × (2 with guidance); those of backward passes not counted */
    int64_t denoiser_calls;                               /* batches */
    int64_t denoiser_grad;                                /* of these with a backward pass, which are evaluated anew */
    int64_t decoder;                                      /* pictures decoded */
    double text_ms, denoiser_ms, decoder_ms, gradient_ms; /* gradient_ms: of pull alone */
} kac_latent_counts;

typedef struct kac_latent kac_latent;

/* Takes all state from c->run; pipeline, solver and texts must outlive it. The first network call of a run happens in predict. */
kac_status kac_latent_open(kac_latent **out, kac_ctx *c, const kac_pipeline *p, const kac_solver *solver,
                           const kac_latent_options *o);
void kac_latent_close(kac_latent *l); /* NULL allowed */
kac_process *kac_latent_process(kac_latent *l);
const kac_latent_counts *kac_latent_counts_of(const kac_latent *l);
int kac_latent_n_truncated(const kac_latent *l); /* prompts longer than the text encoder's context */

/* The picture of a slot's x0-hat or final state, 8-bit RGB [height, width, 3]; decoded in batches, at most once per state. Pointers stay
 * valid until the slot's state changes. */
kac_status kac_latent_pictures(kac_latent *l, const int *slots, int n, kac_stage stage, const uint8_t **out);

/* What a reward of this stage looks at, before it is decoded: [n_slots, h, w, C] f32; and by which decoder (NULL: states are pixels). */
kac_tensor kac_latent_viewed(const kac_latent *l, kac_stage stage);
const kac_codec *kac_latent_decoder(const kac_latent *l, kac_stage stage);

/* The same id means the same state, hence the same picture. */
uint64_t kac_latent_state_id(const kac_latent *l, int slot);

/* The step that states were last predicted at. */
int kac_latent_i_step(const kac_latent *l);

/* The states themselves [n_slots, h, w, C] f32, e.g. to save final latents. */
kac_tensor kac_latent_states(const kac_latent *l);

#endif
