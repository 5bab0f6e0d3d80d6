/* The CPU backend with linear layers and convolutions through oneDNN (2.6 or 3.x): for comparison with the own kernels. */
#ifndef KAC_ONEDNN_H
#define KAC_ONEDNN_H

#include "cpu/kernels.h"

/* The table "onednn": kac_cpu_ops() with other weights and products. NULL when built without oneDNN.
 *
 * Each image runs alone on one thread, images side by side, so that no result depends on the batch or on the number of
 * threads. bf16 where oneDNN has it on this machine (AVX-512); elsewhere a bf16 context uses the cpu slots for all.
 * Arenas: never more than kac_cpu_ops() takes. Besides, on the heap and freed by close: for each weight its layouts and
 * primitives, made when a shape is first seen, and buffers of the largest call. */
const struct kac_ops *kac_onednn_ops(void);

/* Of an open context of that table. */
const struct kac_kernels *kac_onednn_kernels_of(const kac_ctx *c);
bool kac_onednn_has_products(const kac_ctx *c);  /* false: the cpu slots run */
int64_t kac_onednn_primitives(const kac_ctx *c); /* made so far */

#endif
