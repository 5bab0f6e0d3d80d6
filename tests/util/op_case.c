#include "tests/util/op_case.h"

#include "tensor/convert.h"

static bool has(const op_case *row, unsigned flags) {
    return (row->with & flags) == flags;
}

static int rank_of(const op_case *row) {
    int rank = 0;
    while (rank < KAC_MAX_RANK && row->x[rank] != 0) rank++;
    return rank;
}

/* mean + scale · N(0, 1), image by image; `input` tells apart the inputs of one call. */
static kac_status fill(kac_ctx *c, kac_tensor t, uint32_t input, double mean, double scale) {
    if (c->run.counting) return KAC_OK;
    const int64_t count = kac_tensor_count(t), n_images = t.rank == 0 ? 1 : t.shape[0], n = count / n_images;
    float *normal = kac_alloc((size_t)n * sizeof *normal);
    if (normal == NULL) return KAC_E_MEMORY;
    for (int64_t image = 0; image < n_images; image++) {
        kac_rng_normal(normal, n, (kac_key){.seed = 1, .purpose = KAC_PURPOSE_TEST, .step = input}, (uint32_t)image, 0);
        for (int64_t i = 0; i < n; i++) kac_element_store(t.data, t.dtype, image * n + i, mean + scale * normal[i]);
    }
    kac_free(normal);
    return KAC_OK;
}

static kac_status make(kac_ctx *c, kac_tensor *t, kac_dtype dtype, int rank, const int64_t *shape, uint32_t input,
                       double mean, double scale) {
    KAC_TRY(kac_take(t, &c->run, dtype, rank, shape));
    return fill(c, *t, input, mean, scale);
}

#define MAKE(t, dtype, input, mean, scale, ...)                                                                        \
    KAC_TRY(make(c, (t), (dtype), (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), (int64_t[]){__VA_ARGS__}, \
                 (input), (mean), (scale)))

static kac_status make_x(kac_ctx *c, const op_case *row, kac_tensor *x, double mean, double scale) {
    const int rank = rank_of(row);
    const kac_dtype mine = has(row, OTHER_X) ? op_case_other_dtype(c->dtype) : c->dtype;
    const kac_dtype dtype = row->op == KAC_OP_copy ? row->from : mine;
    if (!has(row, WITH_VIEW)) return make(c, x, dtype, rank, row->x, 1, mean, scale);
    int64_t shape[KAC_MAX_RANK];
    memcpy(shape, row->x, sizeof shape);
    shape[rank - 1] += 5;
    KAC_TRY(make(c, x, dtype, rank, shape, 1, mean, scale));
    *x = kac_tensor_slice(*x, rank - 1, 3, row->x[rank - 1]);
    return KAC_OK;
}

static kac_status make_low(kac_ctx *c, const op_case *row, op_inputs *in) {
    const int last = rank_of(row) - 1;
    const int64_t rank = row->groups, n_out = row->to[0] * (has(row, WITH_GEGLU) ? 2 : 1);
    int64_t shape[KAC_MAX_RANK];
    memcpy(shape, row->x, sizeof shape);
    shape[last] = rank * row->rows;
    KAC_TRY(make(c, &in->low, c->dtype, last + 1, shape, 6, 0, 1));
    MAKE(&in->up_weight, KAC_F32, 7, 0, 1 / sqrt((double)rank), n_out, rank);
    return kac_weight_pack(c, &in->up, in->up_weight, 1);
}

static kac_status make_weight(kac_ctx *c, const op_case *row, op_inputs *in) {
    const int64_t n_in = row->x[rank_of(row) - 1], n_out = row->to[0] * (has(row, WITH_GEGLU) ? 2 : 1);
    const int64_t kh = row->kernel[0], kw = row->kernel[1];
    const kac_dtype dtype = has(row, MIXED_DTYPES) ? op_case_other_dtype(c->dtype) : c->dtype;
    const double scale = 1 / sqrt((double)(n_in * KAC_MAX(1, kh * kw)));
    if (row->op == KAC_OP_conv2d)
        MAKE(&in->weight, KAC_F32, 2, 0, scale, n_out, n_in, kh, kw);
    else
        MAKE(&in->weight, KAC_F32, 2, 0, scale, n_out, n_in);
    KAC_TRY(kac_weight_pack(c, &in->w, in->weight, row->op == KAC_OP_conv2d ? row->stride : 1));
    if (has(row, WITH_BIAS)) MAKE(&in->bias, KAC_F32, 3, 0, 1, n_out);
    if (has(row, WITH_LOW)) KAC_TRY(make_low(c, row, in));
    if (has(row, WITH_ROW_BIAS)) MAKE(&in->row_bias, dtype, 4, 0, 1, row->rows, n_out);
    if (!has(row, WITH_RESIDUAL)) return KAC_OK;
    if (row->op == KAC_OP_conv2d) {
        const int64_t h = (row->x[1] + row->pad[0] + row->pad[2] - kh) / row->stride + 1;
        const int64_t w = (row->x[2] + row->pad[1] + row->pad[3] - kw) / row->stride + 1;
        MAKE(&in->residual, dtype, 5, 0, 1, row->x[0], h, w, n_out);
        return KAC_OK;
    }
    int64_t shape[KAC_MAX_RANK];
    memcpy(shape, row->x, sizeof shape);
    shape[rank_of(row) - 1] = row->to[0];
    return make(c, &in->residual, dtype, rank_of(row), shape, 5, 0, 1);
}

/* Views: q from one packed [N, T, 3, heads, d], k and v from another, as after one linear layer for all three. */
static kac_status make_attention(kac_ctx *c, const op_case *row, op_inputs *in) {
    const int64_t n = row->x[0], n_queries = row->x[1], heads = row->x[2], d = row->x[3], n_keys = row->to[0];
    const int64_t n_kv = row->rows > 0 ? row->rows : n;
    const kac_dtype q_dtype = has(row, OTHER_X) ? op_case_other_dtype(c->dtype) : c->dtype;
    kac_tensor packed[2];
    if (!has(row, WITH_VIEW)) {
        MAKE(&in->x, q_dtype, 1, 0, 1, n, n_queries, heads, d);
        MAKE(&in->other[0], c->dtype, 2, 0, 1, n_kv, n_keys, heads, d);
        MAKE(&in->other[1], c->dtype, 3, 0, 1, n_kv, n_keys, heads, d);
        return KAC_OK;
    }
    MAKE(&packed[0], q_dtype, 1, 0, 1, n, n_queries, 3 * heads, d);
    MAKE(&packed[1], c->dtype, 2, 0, 1, n_kv, n_keys, 3 * heads, d);
    in->x = kac_tensor_slice(packed[0], 2, 0, heads);
    in->other[0] = kac_tensor_slice(packed[1], 2, heads, heads);
    in->other[1] = kac_tensor_slice(packed[1], 2, 2 * heads, heads);
    return KAC_OK;
}

static kac_status make_terms(kac_ctx *c, const op_case *row, op_inputs *in) {
    const kac_dtype other = op_case_other_dtype(c->dtype);
    KAC_TRY(make_x(c, row, &in->x, 0, 1));
    for (int t = 1; t < row->n_terms; t++)
        KAC_TRY(make(c, &in->other[t - 1], has(row, MIXED_DTYPES) && t % 2 != 0 ? other : c->dtype, rank_of(row),
                     row->x, (uint32_t)t + 1, 0, 1));
    for (int i = 0; i < row->n_terms * OP_MAX_IMAGES; i++) in->number[i] = 0.37 + 0.11 * i - 0.013 * i * i;
    return KAC_OK;
}

static kac_status make_ids(kac_ctx *c, const op_case *row, op_inputs *in) {
    KAC_TRY(kac_take(&in->x, &c->run, KAC_I32, 2, row->x));
    for (int64_t i = 0; !c->run.counting && i < kac_tensor_count(in->x); i++)
        ((int32_t *)in->x.data)[i] = (int32_t)((7 * i + row->to[0] - 1) % row->to[0]);
    MAKE(&in->other[0], c->dtype, 2, 0, 1, row->to[0], row->to[1]);
    if (has(row, WITH_SCALE)) MAKE(&in->other[1], c->dtype, 3, 0, 1, row->x[1] + 2, row->to[1]);
    return KAC_OK;
}

static kac_status make_other(kac_ctx *c, const op_case *row, op_inputs *in) {
    const int rank = rank_of(row);
    const int64_t channels = row->x[rank - 1];
    int64_t shape[KAC_MAX_RANK];
    memcpy(shape, row->x, sizeof shape);
    switch (row->op) {
    case KAC_OP_group_norm: /* a mean of 5σ: what the sum of squares minus the squared mean gets wrong */
    case KAC_OP_layer_norm:
        KAC_TRY(make_x(c, row, &in->x, 5, 1));
        if (!has(row, WITH_SCALE)) return KAC_OK;
        MAKE(&in->other[0], KAC_F32, 2, 1, 0.3, channels);
        MAKE(&in->other[1], KAC_F32, 3, 0, 1, channels);
        return KAC_OK;
    case KAC_OP_affine:
        KAC_TRY(make_x(c, row, &in->x, 0, 1));
        MAKE(&in->other[0], KAC_F32, 2, 1, 0.3, channels);
        MAKE(&in->other[1], KAC_F32, 3, 0, 1, channels);
        return KAC_OK;
    case KAC_OP_modulate: /* scale and shift are two slices of one product, as in adaptive norms */
        KAC_TRY(make_x(c, row, &in->x, 0, 1));
        MAKE(&in->row_bias, c->dtype, 2, 0, 1, row->rows, 2 * channels);
        in->other[0] = kac_tensor_slice(in->row_bias, 1, 0, channels);
        in->other[1] = kac_tensor_slice(in->row_bias, 1, channels, channels);
        return KAC_OK;
    case KAC_OP_matmul_t:
        KAC_TRY(make_x(c, row, &in->x, 0, 1));
        shape[rank - 2] = row->to[0];
        return make(c, &in->other[0], c->dtype, rank, shape, 2, 0, 1);
    case KAC_OP_concat:
        KAC_TRY(make_x(c, row, &in->x, 0, 1));
        shape[row->axis] = row->to[0];
        return make(c, &in->other[0], c->dtype, rank, shape, 2, 0, 1);
    case KAC_OP_activate:
        return make_x(c, row, &in->x, 0, 4);
    case KAC_OP_copy:
        return make_x(c, row, &in->x, 40, 25);
    default:
        return make_x(c, row, &in->x, 0, 1);
    }
}

kac_status op_case_prepare(kac_ctx *c, const op_case *row, op_inputs *in) {
    *in = (op_inputs){0};
    for (int i = 0; i < OP_MAX_IMAGES; i++)
        in->index[i] = row->op == KAC_OP_gather ? (int)((2 * i + 1) % row->x[0]) : (2 * i + 1) % KAC_MAX(1, row->rows);
    switch (row->op) {
    case KAC_OP_linear:
    case KAC_OP_conv2d:
        KAC_TRY(make_x(c, row, &in->x, 0, 1));
        return make_weight(c, row, in);
    case KAC_OP_attention:
        return make_attention(c, row, in);
    case KAC_OP_lincomb:
        return make_terms(c, row, in);
    case KAC_OP_embedding:
        return make_ids(c, row, in);
    case KAC_OP_timestep_embedding:
        for (int i = 0; i < OP_MAX_IMAGES; i++) in->number[i] = 999 - 41.5 * i;
        return KAC_OK;
    case KAC_OP_randn:
        for (int i = 0; i < OP_MAX_IMAGES; i++) in->index[i] = 3 * i + 7;
        return kac_take(&in->x, &c->run, KAC_F32, rank_of(row), row->x);
    default:
        return make_other(c, row, in);
    }
}

static kac_status call_product(kac_ctx *c, const op_case *row, const op_inputs *in, kac_tensor *out) {
    const int *index = has(row, WITH_INDEX) ? in->index : NULL;
    if (has(row, IN_PLACE)) *out = in->residual;
    if (row->op == KAC_OP_linear)
        return kac_linear(c, out, in->x, &in->w,
                          (kac_linear_opt){.bias = in->bias,
                                           .low = {.x = in->low, .up = &in->up, .parts = row->rows},
                                           .residual = in->residual,
                                           .act = row->act,
                                           .geglu = has(row, WITH_GEGLU)});
    if (row->op == KAC_OP_conv2d)
        return kac_conv2d(c, out, in->x, &in->w,
                          (kac_conv_opt){.stride = row->stride,
                                         .pad = {row->pad[0], row->pad[1], row->pad[2], row->pad[3]},
                                         .bias = in->bias,
                                         .row_bias = in->row_bias,
                                         .row_index = index,
                                         .residual = in->residual,
                                         .act = row->act});
    if (row->op == KAC_OP_matmul_t) return kac_matmul_t(c, out, in->x, in->other[0], 0.125);
    return kac_attention(c, out, in->x, in->other[0], in->other[1],
                         (kac_attention_opt){1 / sqrt((double)in->x.shape[3]), has(row, WITH_CAUSAL), index});
}

static kac_status call_lincomb(kac_ctx *c, const op_case *row, const op_inputs *in, kac_tensor *out) {
    kac_tensor x[KAC_MAX_TERMS] = {in->x};
    const int n_coef = has(row, WITH_ROW_COEF) ? (int)in->x.shape[0] : 1;
    for (int t = 1; t < row->n_terms; t++) x[t] = in->other[t - 1];
    return kac_lincomb(c, out, row->n_terms, x, in->number, n_coef);
}

kac_status op_case_call(kac_ctx *c, const op_case *row, const op_inputs *in, kac_tensor *out) {
    const int *index = has(row, WITH_INDEX) ? in->index : NULL;
    const kac_tensor *other = in->other;
    if (has(row, IN_PLACE)) *out = in->x;
    switch (row->op) {
    case KAC_OP_linear:
    case KAC_OP_conv2d:
    case KAC_OP_matmul_t:
    case KAC_OP_attention:
        return call_product(c, row, in, out);
    case KAC_OP_group_norm:
        return kac_group_norm(c, out, in->x, other[0], other[1], row->groups, 1e-5, row->act);
    case KAC_OP_layer_norm:
        return kac_layer_norm(c, out, in->x, other[0], other[1], 1e-6);
    case KAC_OP_l2_normalize:
        return kac_l2_normalize(c, out, in->x);
    case KAC_OP_activate:
        return kac_activate(c, out, in->x, row->act);
    case KAC_OP_affine:
        return kac_affine(c, out, in->x, other[0], other[1]);
    case KAC_OP_modulate:
        return kac_modulate(c, out, in->x, other[0], other[1], index);
    case KAC_OP_clamp:
        return kac_clamp(c, out, in->x, -0.75, 1);
    case KAC_OP_lincomb:
        return call_lincomb(c, row, in, out);
    case KAC_OP_row_stats:
        return kac_row_stats(c, out, in->x);
    case KAC_OP_copy: {
        const kac_tensor x = row->axis > 0 ? kac_tensor_transpose(in->x, row->axis - 1, row->axis) : in->x;
        if (out->data == NULL) KAC_TRY(kac_take(out, &c->run, row->into, x.rank, x.shape));
        return kac_copy(c, out, x);
    }
    case KAC_OP_concat:
        return kac_concat(c, out, in->x, other[0], row->axis);
    case KAC_OP_gather:
        return kac_gather(c, out, in->x, in->index, row->rows);
    case KAC_OP_embedding:
        return kac_embedding(c, out, in->x, other[0], other[1]);
    case KAC_OP_timestep_embedding:
        return kac_timestep_embedding(c, out, in->number, (int)row->x[0], (int)row->x[1], has(row, WITH_FLIP),
                                      has(row, WITH_SCALE) ? 1 : 0, 1, 10000);
    case KAC_OP_upsample_nearest:
        return kac_upsample_nearest(c, out, in->x, row->to[0], row->to[1]);
    case KAC_OP_avg_pool2:
        return kac_avg_pool2(c, out, in->x);
    case KAC_OP_resample:
        return kac_resample(c, out, in->x, row->to[0], row->to[1], row->filter);
    case KAC_OP_randn:
        *out = in->x;
        return kac_randn(c, out, (kac_key){.seed = 5, .purpose = KAC_PURPOSE_INIT, .step = 2}, in->index);
    case KAC_N_OPS:
        break;
    }
    KAC_ASSERT(!"op");
}

static void cut(kac_tensor *t, int64_t n_images, int64_t n) {
    if (t->data != NULL && t->shape[0] == n_images) *t = kac_tensor_slice(*t, 0, n, 1);
}

bool op_case_one_image(const op_case *row, const op_inputs *in, int64_t n, op_inputs *one) {
    const int64_t n_images = row->x[0];
    *one = *in;
    switch (row->op) {
    case KAC_OP_gather:
    case KAC_OP_concat:
    case KAC_OP_copy:
        return false;
    case KAC_OP_embedding:
        cut(&one->x, n_images, n);
        return true;
    case KAC_OP_group_norm:
    case KAC_OP_layer_norm:
    case KAC_OP_affine:
        cut(&one->x, n_images, n);
        return true;
    default:
        break;
    }
    if (one->x.data != NULL) cut(&one->x, n_images, n);
    cut(&one->residual, n_images, n);
    cut(&one->low, n_images, n);
    if (n < OP_MAX_IMAGES) { /* rows without these may have more images */
        one->index[0] = in->index[n];
        one->number[0] = in->number[n];
    }
    if (!has(row, WITH_INDEX) && row->rows != 1) cut(&one->row_bias, n_images, n);
    for (int i = 0; i < OP_MAX_OTHERS && !has(row, WITH_INDEX) && row->rows != 1; i++) cut(&one->other[i], n_images, n);
    if (row->op == KAC_OP_lincomb)
        for (int t = 0; t < row->n_terms; t++)
            one->number[t] = in->number[has(row, WITH_ROW_COEF) ? t * n_images + n : t];
    return true;
}

bool op_case_exact(const op_case *row) {
    return row->op == KAC_OP_copy || row->op == KAC_OP_concat || row->op == KAC_OP_gather ||
           row->op == KAC_OP_upsample_nearest || row->op == KAC_OP_randn || row->op == KAC_OP_lincomb;
}

double op_case_distance(kac_tensor a, kac_tensor b) {
    double difference = 0, norm = 0;
    if (!kac_tensor_same_shape(a, b)) return INFINITY;
    for (int64_t i = 0; i < kac_tensor_count(a); i++) {
        const double x = kac_element_load(a.data, a.dtype, i), y = kac_element_load(b.data, b.dtype, i);
        difference += (x - y) * (x - y);
        norm += y * y;
    }
    return norm == 0 ? sqrt(difference) : sqrt(difference / norm);
}

bool op_case_same_bits(kac_tensor a, kac_tensor b) {
    return kac_tensor_same_shape(a, b) && a.dtype == b.dtype && memcmp(a.data, b.data, kac_tensor_bytes(a)) == 0;
}

kac_dtype op_case_other_dtype(kac_dtype dtype) {
    return dtype == KAC_F32 ? KAC_BF16 : KAC_F32;
}
