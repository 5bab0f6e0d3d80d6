/* Weights from a formula, the same to the bit in tools/make_golden.py: checkpoints of golden cases are never stored.
 *
 *     key = CRC-32 of the tensor's name
 *     u_i = (lowbias32(lowbias32(i) xor key) >> 8) / 2^23 - 1        24 random bits, in [-1, 1)
 *     w_i = offset + scale u_i                                       in double, rounded once to f32 */
#ifndef KAC_TESTS_GOLDEN_WEIGHTS_H
#define KAC_TESTS_GOLDEN_WEIGHTS_H

#include <stdint.h>

/* Element `index` of the stream `name` as 32 bits; u_i above is its upper 24. */
uint32_t golden_bits(const char *name, uint32_t index);

/* out[0 … n-1] of the tensor `name`. */
void golden_weights(float *out, const char *name, int64_t n, double offset, double scale);

/* The test picture `name`, [height, width, 3]: ramps, a chessboard and noise, integer arithmetic throughout. */
void golden_picture(uint8_t *out, const char *name, int width, int height);

#endif
