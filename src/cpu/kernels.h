/* The table of vector kernels: one per instruction set, chosen once when the backend opens (dispatch.c). */
#ifndef KAC_CPU_KERNELS_H
#define KAC_CPU_KERNELS_H

#include "tensor/ops.h"

/* A matrix product out [m, n] = A [m, k] · W with W in panels, and what happens to a result before it is stored.
 *
 * A's rows are read in place (`a`, `lda`), or gathered by the taps of a convolution (`n_taps` > 1 or `conv`): k = n_taps · n_in.
 * Panels: [panel][tap][n_in][nr], nr columns, the last one padded with zeros.
 * Sums run over k in blocks whose borders depend on n_in and n_taps only: a row's bits depend on nothing but the row. */
typedef struct kac_gemm {
    int64_t m, n, n_in;
    int n_taps;
    const float *a;
    int64_t lda;
    bool conv; /* row m is the pixel (image, y, x) of the output; the fields below count */
    int64_t h, w, ho, wo;
    int kw, stride, pad_top, pad_left;
    const float *zeros; /* n_in zeros: what lies outside the image */
    const void *b;
    bool b_bf16;
    /* a second product, added after the first: rows of `low` [m, low_parts · low_k], panels `low_b` [panel][low_k][nr]; columns of
     * part i, n / low_parts (geglu: 2n) each, read low_k numbers from i · low_k on. NULL: none */
    const float *low;
    const void *low_b; /* of b's type */
    int64_t low_k, low_ld, low_columns;
    /* epilogue: out = act(sum + bias[row's bias row]) + residual */
    const float *bias;   /* [rows][n (geglu: 2n)] or NULL */
    const int *bias_row; /* of image m / rows_per_image; NULL: row 0 */
    int64_t rows_per_image;
    kac_act act;
    bool geglu; /* columns j and n + j of W make column j of out */
    const void *residual;
    int64_t ldr;
    void *out;
    int64_t ldo;
    bool x_bf16; /* of out and residual */
} kac_gemm;

/* Products of Winograd's positions and of attention: plain f32, rows at a + i·lda. */
typedef struct kac_panel_product {
    const float *a;
    int64_t lda;
    const float *b; /* panel p at b + p·ldb */
    int64_t ldb;
    float *out; /* panel p at out + p·nr */
    int64_t ldo;
    int64_t m, k;
    int n_panels, n_last; /* columns of the last panel that exist: others are not stored */
    bool add;             /* out += instead of out = */
} kac_panel_product;

typedef struct kac_wino_map {
    int size;                     /* outputs of a tile: 4 × 4, or 2 × 2 */
    int64_t h, w, ho, wo, th, tw; /* of one image; tiles */
    const float *zeros;           /* n_in zeros: what lies outside the image */
    int pad_top, pad_left;
    int64_t n_in, n_out;
} kac_wino_map;

/* Transformed tiles: channel c of tile t at position p lies at data[p · position + (t − first) · tile + c]. */
typedef struct kac_wino_grid {
    float *data;
    int64_t position, tile, first;
} kac_wino_grid;

typedef struct kac_wino_out {
    const float *bias; /* [rows][n_out] or NULL */
    const int *bias_row;
    kac_act act;
    const void *residual;
    void *out;
    bool x_bf16;
} kac_wino_out;

typedef struct kac_softmax_block {
    float *s; /* [rows, lds]: logits in, e^(s·scale − max) out; padded columns become 0 */
    int64_t lds;
    int rows, n_keys, n_padded;
    int n_visible; /* causal: row i sees keys < n_visible + i; else n_keys for all */
    bool causal;
    float scale;
    float *max, *sum; /* running, per row */
    float *shrink;    /* out: what older sums and outputs are multiplied by */
} kac_softmax_block;

/* Backward of a norm over rows of n channels: z = (x − center) · scale + shift, y = act(z). */
typedef struct kac_norm_grad {
    const void *x;
    bool bf16; /* of x */
    const float *dy, *center, *scale, *shift; /* shift may be NULL */
    const float *by_mean, *by_along;
    float *dx;
    int64_t rows, n;
    kac_act act;
} kac_norm_grad;

struct kac_kernels {
    const char *name;
    int v, mr, nr; /* floats of a vector, rows and columns of the microkernel */
    void (*gemm_rows)(const kac_gemm *g, int64_t m0, int64_t m1, int p0, int p1, float *partial);
    void (*panel_product)(const kac_panel_product *p);
    void (*wino_in)(const kac_wino_map *w, const void *x, bool bf16, int64_t t0, int64_t t1, const kac_wino_grid *grid);
    void (*wino_out)(const kac_wino_map *w, const kac_wino_out *o, int64_t t0, int64_t t1, const kac_wino_grid *grid);
    void (*softmax_block)(const kac_softmax_block *b);
    void (*scale_rows)(float *x, int64_t ld, int rows, int64_t n, const float *by);
    void (*to_f32)(float *out, const uint16_t *x, int64_t n);
    void (*to_bf16)(uint16_t *out, const float *x, int64_t n);
    void (*activate)(void *out, const void *x, int64_t n, kac_act act, bool bf16);
    void (*geglu)(void *out, const float *x, int64_t n, bool bf16);
    /* sums of x − pivot and its square over `rows` rows of n channels: sum[0..n), sum[n..2n) */
    void (*channel_sums)(float *sum, const void *x, int64_t ldx, int64_t rows, int64_t n, const float *pivot,
                         bool bf16);
    void (*scale_shift)(void *out, const void *x, int64_t rows, int64_t n, const float *center, const float *scale,
                        const float *shift, kac_act act, bool bf16);
    void (*layer_norm)(void *out, const void *x, int64_t rows, int64_t n, const float *gamma, const float *beta,
                       float eps, bool bf16);
    void (*lincomb)(void *out, int n_terms, const void *const *x, const bool *x_bf16, const float *coef, int64_t n,
                    bool out_bf16);
    void (*transpose)(float *out, int64_t ldo, const float *x, int64_t ldx, int64_t rows, int64_t cols);
    /* u[p · plane] = G g Gᵀ for one row of nr filters of F(4×4), taps `tap` apart in g */
    void (*wino_filters)(float *u, int64_t plane, const float *g, int64_t tap);
    /* backward (isa/grads.c) */
    void (*act_grad)(float *dx, const void *x, const float *dy, int64_t n, kac_act act, bool bf16, bool add);
    void (*geglu_grad)(float *z, const float *dy, int64_t n);
    void (*add)(float *to, const float *from, int64_t n, float by);
    void (*column_sums)(float *sum, const float *x, int64_t ldx, int64_t rows, int64_t n);
    void (*norm_grad_sums)(const kac_norm_grad *g, float *sum);
    void (*norm_grad_apply)(const kac_norm_grad *g);
    void (*layer_norm_grad)(float *dx, const void *x, const float *dy, int64_t rows, int64_t n, const float *gamma,
                            float eps, bool bf16, float *hat, float *sum);
    void (*softmax_grad)(float *dp, const float *p, int64_t ld, int rows, int64_t n, float scale);
};

/* wide: the vectors and tiles of avx512 in AVX2 instructions, so that tests cover these shapes on any x86 machine. */
extern const struct kac_kernels kac_kernels_portable, kac_kernels_avx2, kac_kernels_avx512, kac_kernels_wide;

#endif
