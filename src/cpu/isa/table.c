/* The table of this instruction set. */
#include "cpu/isa/table.h"
#include "cpu/isa/micro.h"

#define TEXT_(x) #x
#define TEXT(x) TEXT_(x)

const struct kac_kernels kac_isa(kac_kernels) = {
    .name = TEXT(KAC_ISA),
    .v = V,
    .mr = MR,
    .nr = NR,
    .gemm_rows = kac_isa(kac_gemm_rows),
    .panel_product = kac_isa(kac_panel_product_run),
    .wino_in = kac_isa(kac_wino_in),
    .wino_out = kac_isa(kac_wino_out_run),
    .softmax_block = kac_isa(kac_softmax_block_run),
    .scale_rows = kac_isa(kac_scale_rows),
    .to_f32 = kac_isa(kac_to_f32),
    .to_bf16 = kac_isa(kac_to_bf16),
    .activate = kac_isa(kac_activate_run),
    .geglu = kac_isa(kac_geglu_run),
    .channel_sums = kac_isa(kac_channel_sums),
    .scale_shift = kac_isa(kac_scale_shift),
    .layer_norm = kac_isa(kac_layer_norm_run),
#if defined(KAC_ISA_avx2) || defined(KAC_ISA_avx512)
    .lincomb = kac_isa(kac_lincomb_run), /* needs fused multiply-add */
#endif
    .transpose = kac_isa(kac_transpose),
    .wino_filters = kac_isa(kac_wino_filters_run),
    .act_grad = kac_isa(kac_act_grad_run),
    .geglu_grad = kac_isa(kac_geglu_grad_run),
    .add = kac_isa(kac_add_run),
    .column_sums = kac_isa(kac_column_sums_run),
    .norm_grad_sums = kac_isa(kac_norm_grad_sums_run),
    .norm_grad_apply = kac_isa(kac_norm_grad_apply_run),
    .layer_norm_grad = kac_isa(kac_layer_norm_grad_run),
    .softmax_grad = kac_isa(kac_softmax_grad_run),
};
