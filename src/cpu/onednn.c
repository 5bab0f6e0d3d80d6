/* Linear layers and convolutions through oneDNN: its state, weights, products and the table. */
#include "cpu/onednn.h"
#include "cpu/cpu.h"
#include "cpu/onednn_desc.h"
#include "ref/ref.h"

#ifndef KAC_ONEDNN

const struct kac_ops *kac_onednn_ops(void) {
    return NULL;
}

const struct kac_kernels *kac_onednn_kernels_of(const kac_ctx *c) {
    (void)c;
    return &kac_kernels_portable;
}

bool kac_onednn_has_products(const kac_ctx *c) {
    (void)c;
    return false;
}

int64_t kac_onednn_primitives(const kac_ctx *c) {
    (void)c;
    return 0;
}

#else

#include <string.h>

/* ---- state ---- */
typedef struct buffer {
    void *p; /* 64-byte aligned, inside base */
    void *base;
    size_t n_bytes;
} buffer;

/* What one thread hands to a primitive; only the addresses in them change. */
typedef struct thread_memory {
    dnnl_memory_t x, bias, out, scratch;
} thread_memory;

typedef struct packed_layout {
    struct packed_layout *next;
    dnnl_memory_t memory;
    buffer data;
} packed_layout;

typedef struct product {
    struct product *next;
    kac_onednn_key key;
    dnnl_primitive_t primitive;
    const packed_layout *weights;
    thread_memory *threads;
} product;

typedef struct packed_weight {
    struct packed_weight *next;
    kac_onednn_shape shape;
    bool bf16;
    void *plain; /* [n_out, n_in, kh, kw] in the model arena */
    packed_layout *layouts;
    product *products;
} packed_weight;

typedef struct thread_state {
    dnnl_stream_t stream;
    buffer scratch;
} thread_state;

typedef struct onednn_state {
    const struct kac_kernels *kernels;
    bool has_products;
    dnnl_engine_t engine;
    int n_threads;
    thread_state *threads;
    packed_weight *weights;
    buffer x, sums;
    int64_t n_primitives;
} onednn_state;

static kac_status buffer_reserve(buffer *b, size_t n_bytes) {
    if (n_bytes <= b->n_bytes && b->base != NULL) return KAC_OK;
    kac_free(b->base);
    *b = (buffer){.base = kac_alloc(n_bytes + 64)};
    if (b->base == NULL) return KAC_E_MEMORY;
    b->p = (void *)(((uintptr_t)b->base + 63) / 64 * 64);
    b->n_bytes = n_bytes;
    return KAC_OK;
}

static void memory_free(dnnl_memory_t m) {
    if (m != NULL) dnnl_memory_destroy(m);
}

static void product_free(product *p, int n_threads) {
    for (int i = 0; p->threads != NULL && i < n_threads; i++) {
        memory_free(p->threads[i].x);
        memory_free(p->threads[i].bias);
        memory_free(p->threads[i].out);
        memory_free(p->threads[i].scratch);
    }
    if (p->primitive != NULL) dnnl_primitive_destroy(p->primitive);
    kac_free(p->threads);
    kac_free(p);
}

static void layout_free(packed_layout *l) {
    memory_free(l->memory);
    kac_free(l->data.base);
    kac_free(l);
}

static void weight_free(packed_weight *w, int n_threads) {
    for (product *p = w->products, *next; p != NULL; p = next) {
        next = p->next;
        product_free(p, n_threads);
    }
    for (packed_layout *l = w->layouts, *next; l != NULL; l = next) {
        next = l->next;
        layout_free(l);
    }
    kac_free(w);
}

static void close_backend(kac_ctx *c) {
    onednn_state *s = c->backend;
    if (s == NULL) return;
    for (packed_weight *w = s->weights, *next; w != NULL; w = next) {
        next = w->next;
        weight_free(w, s->n_threads);
    }
    for (int i = 0; s->threads != NULL && i < s->n_threads; i++) {
        if (s->threads[i].stream != NULL) dnnl_stream_destroy(s->threads[i].stream);
        kac_free(s->threads[i].scratch.base);
    }
    if (s->engine != NULL) dnnl_engine_destroy(s->engine);
    kac_free(s->threads);
    kac_free(s->x.base);
    kac_free(s->sums.base);
    kac_free(s);
    c->backend = NULL;
}

static kac_status open_backend(kac_ctx *c) {
    onednn_state *s = kac_alloc(sizeof *s);
    if (s == NULL) return KAC_E_MEMORY;
    c->backend = s; /* close frees what there is when this fails */
    s->n_threads = c->n_threads;
    KAC_TRY(kac_cpu_kernels_find(&s->kernels));
    s->threads = kac_alloc((size_t)s->n_threads * sizeof *s->threads);
    if (s->threads == NULL) return KAC_E_MEMORY;
    DNNL_TRY(dnnl_engine_create, &s->engine, dnnl_cpu, 0);
    for (int i = 0; i < s->n_threads; i++)
        DNNL_TRY(dnnl_stream_create, &s->threads[i].stream, s->engine, dnnl_stream_default_flags);
    /* oneDNN refuses bf16 where the machine has no instructions for it. */
    dnnl_primitive_desc_t trial = NULL;
    const kac_onednn_key key = {.bf16 = 1, .bias = 1, .h = 16, .w = 1};
    const kac_onednn_shape shape = {16, 16, 1, 1};
    s->has_products = c->dtype == KAC_F32 || kac_onednn_find_desc(&trial, s->engine, &key, &shape) == KAC_OK;
    if (trial != NULL) dnnl_primitive_desc_destroy(trial);
    return KAC_OK;
}

/* ---- weights ---- */
static size_t plain_bytes(const kac_ctx *c, const kac_weight *w) {
    return (size_t)(w->n_out * w->n_in * KAC_MAX(1, w->kh) * KAC_MAX(1, w->kw)) * kac_dtype_bytes(c->dtype);
}

static void weight_bytes(const kac_ctx *c, const kac_weight *w, int stride_hint, size_t *model, size_t *scratch) {
    if (!kac_onednn_has_products(c)) {
        kac_cpu_weight_bytes(c, w, stride_hint, model, scratch);
        return;
    }
    *model = plain_bytes(c, w);
    *scratch = 0;
}

static kac_status weight_pack(kac_ctx *c, kac_weight *w, kac_tensor src, int stride_hint) {
    onednn_state *s = c->backend;
    if (!s->has_products) return kac_cpu_weight_pack(c, w, src, stride_hint);
    w->dtype = c->dtype;
    w->n_bytes = plain_bytes(c, w);
    w->data = kac_arena_take(&c->model, w->n_bytes);
    packed_weight *p = w->data == NULL ? NULL : kac_alloc(sizeof *p);
    if (p == NULL) return KAC_E_MEMORY;
    p->shape = (kac_onednn_shape){w->n_out, w->n_in, KAC_MAX(1, w->kh), KAC_MAX(1, w->kw)};
    p->plain = w->data, p->bf16 = w->dtype == KAC_BF16;
    p->next = s->weights, s->weights = p;
    w->impl = p;
    for (int64_t i = 0, n = kac_tensor_count(src); i < n; i++)
        kac_element_store(w->data, w->dtype, i, kac_element_load(src.data, src.dtype, i));
    return KAC_OK;
}

static kac_status reorder(onednn_state *s, dnnl_memory_t from, dnnl_memory_t to) {
    kac_onednn_desc from_desc, to_desc;
    DNNL_TRY(dnnl_memory_get_memory_desc, from, &from_desc);
    DNNL_TRY(dnnl_memory_get_memory_desc, to, &to_desc);
    dnnl_primitive_desc_t pd;
    dnnl_primitive_t primitive;
    DNNL_TRY(dnnl_reorder_primitive_desc_create, &pd, from_desc, s->engine, to_desc, s->engine, NULL);
    const dnnl_status_t created = dnnl_primitive_create(&primitive, pd);
    dnnl_primitive_desc_destroy(pd);
    if (created != dnnl_success)
        return KAC_FAIL(KAC_E_DEVICE, "oneDNN: dnnl_primitive_create failed with status %d for a reorder", created);
    const dnnl_exec_arg_t args[] = {{DNNL_ARG_FROM, from}, {DNNL_ARG_TO, to}};
    dnnl_status_t ran = dnnl_primitive_execute(primitive, s->threads[0].stream, KAC_COUNT_OF(args), args);
    if (ran == dnnl_success) ran = dnnl_stream_wait(s->threads[0].stream);
    dnnl_primitive_destroy(primitive);
    if (ran != dnnl_success)
        return KAC_FAIL(KAC_E_DEVICE, "oneDNN: dnnl_primitive_execute failed with status %d for a reorder", ran);
    return KAC_OK;
}

static kac_status layout_fill(onednn_state *s, packed_layout *l, const packed_weight *w, bool conv,
                              kac_onednn_desc wanted) {
    KAC_TRY(buffer_reserve(&l->data, dnnl_memory_desc_get_size(wanted)));
    DNNL_TRY(dnnl_memory_create, &l->memory, wanted, s->engine, l->data.p);
    dnnl_memory_t from;
    KAC_TRY(kac_onednn_plain(&from, s->engine, &w->shape, w->bf16, conv, w->plain));
    const kac_status status = reorder(s, from, l->memory);
    memory_free(from);
    return status;
}

/* The weight as a primitive wants it; shapes that want the same layout share it. */
static kac_status layout_find(onednn_state *s, const packed_layout **out, packed_weight *w, bool conv,
                              kac_onednn_desc wanted) {
    for (packed_layout *l = w->layouts; l != NULL; l = l->next) {
        kac_onednn_desc have;
        DNNL_TRY(dnnl_memory_get_memory_desc, l->memory, &have);
        *out = l;
        if (dnnl_memory_desc_equal(have, wanted)) return KAC_OK;
    }
    packed_layout *l = kac_alloc(sizeof *l);
    if (l == NULL) return KAC_E_MEMORY;
    const kac_status status = layout_fill(s, l, w, conv, wanted);
    if (status != KAC_OK) {
        layout_free(l);
        return status;
    }
    l->next = w->layouts, w->layouts = l;
    *out = l;
    return KAC_OK;
}

/* ---- products ---- */
static kac_status product_fill(onednn_state *s, product *p, packed_weight *w, const_dnnl_primitive_desc_t pd) {
    const kac_onednn_desc x = dnnl_primitive_desc_query_md(pd, dnnl_query_src_md, 0),
                          weights = dnnl_primitive_desc_query_md(pd, dnnl_query_weights_md, 0),
                          bias = dnnl_primitive_desc_query_md(pd, dnnl_query_weights_md, 1),
                          out = dnnl_primitive_desc_query_md(pd, dnnl_query_dst_md, 0),
                          scratch = dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0);
    KAC_TRY(layout_find(s, &p->weights, w, p->key.conv, weights));
    DNNL_TRY(dnnl_primitive_create, &p->primitive, pd);
    p->threads = kac_alloc((size_t)s->n_threads * sizeof *p->threads);
    if (p->threads == NULL) return KAC_E_MEMORY;
    for (int i = 0; i < s->n_threads; i++) {
        thread_memory *t = &p->threads[i];
        KAC_TRY(buffer_reserve(&s->threads[i].scratch, dnnl_memory_desc_get_size(scratch)));
        DNNL_TRY(dnnl_memory_create, &t->x, x, s->engine, DNNL_MEMORY_NONE);
        DNNL_TRY(dnnl_memory_create, &t->out, out, s->engine, DNNL_MEMORY_NONE);
        DNNL_TRY(dnnl_memory_create, &t->scratch, scratch, s->engine, DNNL_MEMORY_NONE);
        if (p->key.bias) DNNL_TRY(dnnl_memory_create, &t->bias, bias, s->engine, DNNL_MEMORY_NONE);
    }
    return KAC_OK;
}

static kac_status product_find(onednn_state *s, const product **out, packed_weight *w, const kac_onednn_key *key) {
    for (const product *p = w->products; p != NULL; p = p->next)
        if (memcmp(&p->key, key, sizeof *key) == 0) {
            *out = p;
            return KAC_OK;
        }
    dnnl_primitive_desc_t pd;
    KAC_TRY(kac_onednn_find_desc(&pd, s->engine, key, &w->shape));
    product *p = kac_alloc(sizeof *p);
    kac_status status = KAC_E_MEMORY;
    if (p != NULL) {
        p->key = *key;
        status = product_fill(s, p, w, pd);
    }
    dnnl_primitive_desc_destroy(pd);
    if (status != KAC_OK) {
        if (p != NULL) product_free(p, s->n_threads);
        return status;
    }
    p->next = w->products, w->products = p;
    s->n_primitives++;
    *out = p;
    return KAC_OK;
}

/* One image on thread t: NULL, or the call that failed. */
static const char *run_image(onednn_state *s, const product *p, int t, const void *x, const void *bias, float *out) {
    const thread_memory *m = &p->threads[t];
    dnnl_exec_arg_t args[5] = {{DNNL_ARG_SRC, m->x},
                               {DNNL_ARG_WEIGHTS, p->weights->memory},
                               {DNNL_ARG_DST, m->out},
                               {DNNL_ARG_SCRATCHPAD, m->scratch},
                               {DNNL_ARG_BIAS, m->bias}};
    bool set = dnnl_memory_set_data_handle(m->x, (void *)x) == dnnl_success &&
               dnnl_memory_set_data_handle(m->out, out) == dnnl_success &&
               dnnl_memory_set_data_handle(m->scratch, s->threads[t].scratch.p) == dnnl_success;
    if (set && p->key.bias) set = dnnl_memory_set_data_handle(m->bias, (void *)bias) == dnnl_success;
    if (!set) return "dnnl_memory_set_data_handle";
    if (dnnl_primitive_execute(p->primitive, s->threads[t].stream, p->key.bias ? 5 : 4, args) != dnnl_success)
        return "dnnl_primitive_execute";
    return dnnl_stream_wait(s->threads[t].stream) == dnnl_success ? NULL : "dnnl_stream_wait";
}

/* sums [images][rows][columns] = x wᵀ + bias in f32; what comes after in finish(). */
typedef struct call {
    kac_onednn_key key;
    packed_weight *w;
    kac_tensor x, out, residual, row_bias;
    const float *bias;
    const int *row_index;
    kac_act act;
    bool geglu;
    int64_t images, rows, n; /* rows of an image; columns of out */
    float *sums;
} call;

static kac_status run_images(kac_ctx *c, const call *a) {
    onednn_state *s = c->backend;
    const product *p;
    KAC_TRY(product_find(s, &p, a->w, &a->key));
    const int64_t x_bytes = (int64_t)kac_tensor_bytes(a->x) / a->images,
                  n_sums = a->rows * (a->geglu ? 2 * a->n : a->n);
    const double flops = 2.0 * (double)(a->images * n_sums) * (double)kac_tensor_count(a->x) /
                         (double)(a->images * a->rows); /* of the order of */
    const int threads = (int)KAC_MIN((int64_t)kac_cpu_threads(c, flops), a->images);
    const char *failed = NULL;
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (int64_t i = 0; i < a->images; i++) {
        const char *f =
            run_image(s, p, omp_get_thread_num(), (const char *)a->x.data + i * x_bytes, a->bias, a->sums + i * n_sums);
        if (f != NULL) {
#pragma omp atomic write
            failed = f;
        }
    }
    return failed == NULL ? KAC_OK : KAC_FAIL(KAC_E_DEVICE, "oneDNN: %s failed; use --backend cpu", failed);
}

static void add_row(float *s, const kac_tensor *t, int64_t first, int64_t n) {
    const float *x = t->data;
    const uint16_t *half = t->data;
    if (t->dtype == KAC_BF16)
        for (int64_t j = 0; j < n; j++) s[j] += kac_bf16_to_f32(half[first + j]);
    else
        for (int64_t j = 0; j < n; j++) s[j] += x[first + j];
}

static void finish_row(const struct kac_kernels *k, const call *a, int64_t image, int64_t r) {
    float *s = a->sums + r * (a->geglu ? 2 * a->n : a->n);
    if (a->row_bias.data != NULL) {
        const int64_t u = a->row_index ? a->row_index[image] : a->row_bias.shape[0] == 1 ? 0 : image;
        add_row(s, &a->row_bias, u * a->row_bias.stride[0], a->n);
    }
    if (a->geglu)
        k->geglu(s, s, a->n, false);
    else if (a->act != KAC_ACT_NONE)
        k->activate(s, s, a->n, a->act, false);
    if (a->residual.data != NULL) add_row(s, &a->residual, r * a->n, a->n);
    if (a->out.dtype == KAC_BF16)
        k->to_bf16((uint16_t *)a->out.data + r * a->n, s, a->n);
    else if (a->sums != a->out.data)
        memcpy((float *)a->out.data + r * a->n, s, (size_t)a->n * sizeof *s);
}

static void finish(kac_ctx *c, const call *a) {
    const struct kac_kernels *k = kac_onednn_kernels_of(c);
    const bool nothing = a->row_bias.data == NULL && !a->geglu && a->act == KAC_ACT_NONE && a->residual.data == NULL;
    if (nothing && a->sums == a->out.data) return;
    const int64_t n_rows = a->images * a->rows;
    const int threads = kac_cpu_threads(c, 8.0 * (double)(n_rows * a->n));
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (int64_t r = 0; r < n_rows; r++) finish_row(k, a, r / a->rows, r);
}

static kac_status run(kac_ctx *c, call *a) {
    onednn_state *s = c->backend;
    if (kac_tensor_count(a->out) == 0) return KAC_OK;
    /* bf16 arithmetic in bf16 contexts only; f32 products take anything. */
    a->key.bf16 = a->x.dtype == KAC_BF16 && a->w->bf16;
    const kac_dtype wanted = a->key.bf16 ? KAC_BF16 : KAC_F32;
    if (a->x.dtype != wanted || !kac_tensor_contiguous(a->x)) {
        KAC_TRY(buffer_reserve(&s->x, (size_t)kac_tensor_count(a->x) * kac_dtype_bytes(wanted)));
        const kac_copy_args copy = {.out = kac_tensor_of(s->x.p, wanted, a->x.rank, a->x.shape), .x = a->x};
        KAC_TRY(kac_cpu_copy(c, &copy));
        a->x = copy.out;
    }
    a->sums = a->out.data;
    if (a->out.dtype != KAC_F32 || a->geglu || a->residual.data == a->out.data) {
        const int64_t n = kac_tensor_count(a->out) * (a->geglu ? 2 : 1);
        KAC_TRY(buffer_reserve(&s->sums, (size_t)n * sizeof(float)));
        a->sums = s->sums.p;
    }
    a->key.bias = a->bias != NULL;
    /* Primitives are made and run with one thread each: oneDNN cuts sums differently for every number of threads. */
    const int before = omp_get_max_threads();
    omp_set_num_threads(1);
    const kac_status status = run_images(c, a);
    omp_set_num_threads(before);
    if (status == KAC_OK) finish(c, a);
    return status;
}

/* ---- slots ---- */
static kac_status onednn_linear(kac_ctx *c, const kac_linear_args *a) {
    if (!kac_onednn_has_products(c)) return kac_cpu_linear(c, a);
    if (a->o.low.x.data != NULL)
        return KAC_FAIL(KAC_E_UNSUPPORTED, "the backend onednn adds no LoRA at run time; use --lora-merge");
    const int64_t n = a->out.shape[a->out.rank - 1], images = a->x.rank > 1 ? a->x.shape[0] : 1;
    const int64_t rows = images == 0 || n == 0 ? 0 : kac_tensor_count(a->out) / n / images;
    call k = {.key = {.h = rows, .w = 1},
              .w = (packed_weight *)a->w->impl,
              .x = a->x,
              .out = a->out,
              .residual = a->o.residual,
              .bias = a->o.bias.data,
              .act = a->o.act,
              .geglu = a->o.geglu,
              .images = images,
              .rows = rows,
              .n = n};
    return run(c, &k);
}

static kac_status onednn_conv2d(kac_ctx *c, const kac_conv2d_args *a) {
    if (!kac_onednn_has_products(c)) return kac_cpu_conv2d(c, a);
    const int64_t *x = a->x.shape, *out = a->out.shape;
    call k = {.key = {.conv = 1, .h = x[1], .w = x[2], .ho = out[1], .wo = out[2], .stride = a->o.stride},
              .w = (packed_weight *)a->w->impl,
              .x = a->x,
              .out = a->out,
              .residual = a->o.residual,
              .row_bias = a->o.row_bias,
              .bias = a->o.bias.data,
              .row_index = a->o.row_index,
              .act = a->o.act,
              .images = x[0],
              .rows = out[1] * out[2],
              .n = out[3]};
    for (int i = 0; i < 4; i++) k.key.pad[i] = a->o.pad[i];
    return run(c, &k);
}

static size_t scratch_bytes(const kac_ctx *c, kac_op op, const void *args) {
    const bool product = op == KAC_OP_linear || op == KAC_OP_conv2d;
    return product && kac_onednn_has_products(c) ? 0 : kac_cpu_ops()->scratch_bytes(c, op, args);
}

static const struct kac_ops onednn_ops = {.name = "onednn",
                                          .open = open_backend,
                                          .close = close_backend,
                                          .weight_pack = weight_pack,
                                          .weight_bytes = weight_bytes,
                                          .scratch_bytes = scratch_bytes,
                                          .linear = onednn_linear,
                                          .conv2d = onednn_conv2d,
#define REF_ENTRY(op) .op = kac_ref_##op,
                                          KAC_REF_KEPT(REF_ENTRY)
#undef REF_ENTRY
#define CPU_ENTRY(op) .op = kac_cpu_##op,
                                              KAC_CPU_OTHERS(CPU_ENTRY)
#undef CPU_ENTRY
};

const struct kac_ops *kac_onednn_ops(void) {
    return &onednn_ops;
}

const struct kac_kernels *kac_onednn_kernels_of(const kac_ctx *c) {
    return ((const onednn_state *)c->backend)->kernels;
}

bool kac_onednn_has_products(const kac_ctx *c) {
    return ((const onednn_state *)c->backend)->has_products;
}

int64_t kac_onednn_primitives(const kac_ctx *c) {
    return ((const onednn_state *)c->backend)->n_primitives;
}

#endif
