/* Golden cases: a small network with formula weights, what the reference implementation computes with it, and how far
 * ours is from that at every named tap. tests/golden/README.md describes the files.
 *
 *     golden g;
 *     if (!CHECK_OK(golden_open(&g, "unet/sd1"))) return;             // writes the checkpoint to g.dir
 *     CHECK_OK(kac_unet_load(&u, c, g.dir));
 *     golden_watch(&g, c, 1e-5);                                      // every kac_tap is compared from here on
 *     CHECK_OK(golden_input(&x, &g, c, "sample"));                    // NHWC, in c->run
 *     …
 *     CHECK(golden_output(&g, "sample", out));
 *     CHECK(golden_done(&g));                                         // prints one line; the first tap beyond
 * tolerance golden_close(&g);
 *
 * Taps have the module paths of the reference ("down_blocks.0.resnets.1", "mid_block.attentions.0",
 * "text_model.encoder.layers.0.self_attn"). Rank-4 tensors are NCHW in the file and NHWC (or [N, HW, C]) in ours; all
 * others have the same order of elements. Taps that the file does not have are counted and otherwise ignored. */
#ifndef KAC_TESTS_GOLDEN_H
#define KAC_TESTS_GOLDEN_H

#include "base/json.h"
#include "io/safetensors.h"
#include "io/weights.h"
#include "tensor/ctx.h"

enum { GOLDEN_MAX_NAME = 128, GOLDEN_MAX_CASES = 64, GOLDEN_MAX_REPORTS = 512 };

typedef struct golden_report {
    char name[GOLDEN_MAX_NAME];
    double error; /* relative L2 over the stored elements; infinite when shapes differ or a value is not finite */
} golden_report;

typedef struct golden {
    char name[GOLDEN_MAX_NAME];
    char dir
        [GOLDEN_MAX_NAME]; /* the checkpoint, in a folder of its own in the test's temporary folder; "" without one */
    kac_json json;
    kac_weights data;
    kac_ctx *watched;
    double tolerance;
    golden_report *reports; /* in the order in which the network reported them */
    int n_reports, n_unknown;
} golden;

/* "unet" -> every case of tests/golden/unet, sorted, as "unet/NAME". Returns how many; 0 is a broken checkout. */
int golden_list(char names[GOLDEN_MAX_CASES][GOLDEN_MAX_NAME], const char *family);

/* Reads tests/golden/NAME.{json,safetensors}, writes config.json and the weights to a fresh folder. KAC_E_FORMAT when
 * the formula gives other weights than the ones that the reference used. On failure nothing needs closing. */
kac_status golden_open(golden *g, const char *name);
/* The same without a checkpoint. */
kac_status golden_open_data(golden *g, const char *name);
void golden_close(golden *g); /* removes the checkpoint, stops watching */

/* The class of the case, "UNet2DConditionModel"; "" when it has none. */
const char *golden_class(const golden *g);
bool golden_has_output(const golden *g, const char *name);

/* Input `name` in c->run, f32 or the integer type of the file; rank 4 as NHWC. */
kac_status golden_input(kac_tensor *out, const golden *g, kac_ctx *c, const char *name);
/* The same as numbers on the host: at most n_max; *n is the count. A single timestep is not repeated for the batch. */
kac_status golden_reals(const golden *g, const char *name, double *out, int n_max, int *n);
kac_status golden_ids(const golden *g, const char *name, int32_t *out, int n_max, int64_t *rows, int64_t *columns);

/* 2e-2, or a quarter more than what the reference's own bf16 run is off at its worst tap where that is more: random
 * weights make attention sharper than training does, and the roundings of the two runs are independent. */
double golden_bf16_tolerance(const golden *g);

/* Compares every tap of c with the file's until golden_close. */
void golden_watch(golden *g, kac_ctx *c, double tolerance);

/* Compares output `name`; true when within g->tolerance. */
bool golden_output(golden *g, const char *name, kac_tensor value);

/* Prints the share of the tolerance that was used, and the first tap beyond it. True when all are within it and at
 * least one was compared. */
bool golden_done(const golden *g);

/* Writes config and weights of one description (the root of a case file, or one of its "parts") into `dir`, which
 * exists. */
kac_status golden_write_model(const kac_json *j, const cJSON *model, const char *dir);

/* Opens a case of whole pipelines ("pipeline/tiny") and writes the folder that StableDiffusionPipeline would save, with
 * the tokenizer of the shipped model, to g->dir. Its runs are listed under "runs" in the case. */
kac_status golden_open_pipeline(golden *g, const char *name);

#endif
