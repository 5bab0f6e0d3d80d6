/* What each file of this folder gives to the table (table.c), with the instruction set in its name. */
#ifndef KAC_CPU_TABLE_H
#define KAC_CPU_TABLE_H

#include "cpu/isa/vec.h"
#include "cpu/kernels.h"

void kac_isa(kac_gemm_rows)(const kac_gemm *g, int64_t m0, int64_t m1, int p0, int p1, float *partial);
void kac_isa(kac_panel_product_run)(const kac_panel_product *p);
void kac_isa(kac_wino_in)(const kac_wino_map *w, const void *x, bool bf16, int64_t t0, int64_t t1,
                          const kac_wino_grid *grid);
void kac_isa(kac_wino_out_run)(const kac_wino_map *w, const kac_wino_out *o, int64_t t0, int64_t t1,
                               const kac_wino_grid *grid);
void kac_isa(kac_to_f32)(float *out, const uint16_t *x, int64_t n);
void kac_isa(kac_to_bf16)(uint16_t *out, const float *x, int64_t n);
void kac_isa(kac_activate_run)(void *out, const void *x, int64_t n, kac_act act, bool bf16);
void kac_isa(kac_geglu_run)(void *out, const float *x, int64_t n, bool bf16);
void kac_isa(kac_channel_sums)(float *sum, const void *x, int64_t ldx, int64_t rows, int64_t n, const float *pivot,
                               bool bf16);
void kac_isa(kac_scale_shift)(void *out, const void *x, int64_t rows, int64_t n, const float *center,
                              const float *scale, const float *shift, kac_act act, bool bf16);
void kac_isa(kac_layer_norm_run)(void *out, const void *x, int64_t rows, int64_t n, const float *gamma,
                                 const float *beta, float eps, bool bf16);
void kac_isa(kac_lincomb_run)(void *out, int n_terms, const void *const *x, const bool *x_bf16, const float *coef,
                              int64_t n, bool out_bf16);
void kac_isa(kac_softmax_block_run)(const kac_softmax_block *b);
void kac_isa(kac_scale_rows)(float *x, int64_t ld, int rows, int64_t n, const float *by);
void kac_isa(kac_transpose)(float *out, int64_t ldo, const float *x, int64_t ldx, int64_t rows, int64_t cols);
void kac_isa(kac_wino_filters_run)(float *u, int64_t plane, const float *g, int64_t tap);
void kac_isa(kac_act_grad_run)(float *dx, const void *x, const float *dy, int64_t n, kac_act act, bool bf16, bool add);
void kac_isa(kac_geglu_grad_run)(float *z, const float *dy, int64_t n);
void kac_isa(kac_add_run)(float *to, const float *from, int64_t n, float by);
void kac_isa(kac_column_sums_run)(float *sum, const float *x, int64_t ldx, int64_t rows, int64_t n);
void kac_isa(kac_norm_grad_sums_run)(const kac_norm_grad *g, float *sum);
void kac_isa(kac_norm_grad_apply_run)(const kac_norm_grad *g);
void kac_isa(kac_layer_norm_grad_run)(float *dx, const void *x, const float *dy, int64_t rows, int64_t n,
                                      const float *gamma, float eps, bool bf16, float *hat, float *sum);
void kac_isa(kac_softmax_grad_run)(float *dp, const float *p, int64_t ld, int rows, int64_t n, float scale);

#endif
