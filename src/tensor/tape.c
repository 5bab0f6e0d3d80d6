#include "tape.h"
#include <string.h>

enum { LEAF = -1 };

/* Memory whose gradient is wanted: a result, a watched tensor, or a join of several that were read as one. */
typedef struct kac_tape_node {
    uintptr_t first, end; /* bytes [first, end) */
    int64_t size;         /* of an element */
    bool dense;           /* no gaps: whatever lies in [first, end) is its */
    bool owned;           /* grad comes from the tape's arena */
    float *grad;          /* one for each element of [first, end); NULL: nothing was added yet */
} kac_tape_node;

typedef struct kac_tape_entry {
    kac_op op; /* KAC_N_OPS: a segment or a join */
    kac_segment_fn run;
    void *args;
    size_t n_args, notes; /* notes: mark before this entry */
    int n_nodes;          /* nodes before this entry's results */
    int out;
    int n_in;
    int *in; /* nodes of inputs, −1: no gradient; of a join: its parts */
} kac_tape_entry;

/* A piece of the gradients' arena. */
typedef struct kac_tape_block {
    size_t at, n;
    bool used;
} kac_tape_block;

/* ---- growing lists ---- */

static kac_status grow(void **list, int *cap, int n, size_t size) {
    if (n < *cap) return KAC_OK;
    const int wanted = KAC_MAX(64, 2 * *cap);
    void *p = kac_realloc(*list, (size_t)wanted * size);
    if (p == NULL) return KAC_E_MEMORY;
    *list = p;
    *cap = wanted;
    return KAC_OK;
}

static void *note(kac_grad_tape *t, const void *data, size_t n) {
    void *p = kac_arena_take(&t->notes, n);
    if (p != NULL && n > 0) memcpy(p, data, n);
    return p;
}

/* ---- gradients of results: first fit, so that a plan run finds the same peak ---- */

static kac_status block_insert(kac_grad_tape *t, int i, kac_tape_block b) {
    KAC_TRY(grow((void **)&t->block, &t->cap_blocks, t->n_blocks, sizeof *t->block));
    memmove(t->block + i + 1, t->block + i, (size_t)(t->n_blocks - i) * sizeof *t->block);
    t->block[i] = b;
    t->n_blocks++;
    return KAC_OK;
}

static kac_status block_take(kac_grad_tape *t, float **out, size_t n) {
    n = (n + 63) / 64 * 64;
    for (int i = 0; i < t->n_blocks; i++) {
        kac_tape_block *b = &t->block[i];
        if (b->used || b->n < n) continue;
        if (b->n > n) KAC_TRY(block_insert(t, i + 1, (kac_tape_block){t->block[i].at + n, t->block[i].n - n, false}));
        t->block[i].n = n;
        t->block[i].used = true;
        *out = (float *)(void *)(t->grads.base + t->block[i].at);
        return KAC_OK;
    }
    const size_t peak = t->grads.peak;
    char *p = kac_arena_take(&t->grads, n);
    if (p == NULL) return KAC_E_MEMORY;
    t->c->gradients += t->grads.peak - peak;
    t->c->gradients_peak = KAC_MAX(t->c->gradients_peak, t->c->gradients);
    *out = (float *)(void *)p;
    return block_insert(t, t->n_blocks, (kac_tape_block){(size_t)(p - t->grads.base), n, true});
}

static void block_remove(kac_grad_tape *t, int i) {
    t->n_blocks--;
    memmove(t->block + i, t->block + i + 1, (size_t)(t->n_blocks - i) * sizeof *t->block);
}

static void block_give(kac_grad_tape *t, const float *p) {
    const size_t at = (size_t)((const char *)p - t->grads.base);
    int i = 0;
    while (i < t->n_blocks && t->block[i].at != at) i++;
    KAC_ASSERT(i < t->n_blocks && t->block[i].used);
    t->block[i].used = false;
    if (i + 1 < t->n_blocks && !t->block[i + 1].used) {
        t->block[i].n += t->block[i + 1].n;
        block_remove(t, i + 1);
    }
    if (i > 0 && !t->block[i - 1].used) {
        t->block[i - 1].n += t->block[i].n;
        block_remove(t, i--);
    }
    if (i == t->n_blocks - 1) { /* the end of the arena is free again */
        kac_arena_release(&t->grads, t->block[i].at);
        t->n_blocks--;
    }
}

/* ---- nodes ---- */

static void span_of(kac_tensor x, uintptr_t *first, uintptr_t *end) {
    int64_t last = 0;
    for (int i = 0; i < x.rank; i++) last += (x.shape[i] - 1) * x.stride[i];
    *first = (uintptr_t)x.data;
    *end = *first + (size_t)(last + 1) * kac_dtype_bytes(x.dtype);
}

static bool floating(kac_tensor x) {
    return x.data != NULL && (x.dtype == KAC_F32 || x.dtype == KAC_BF16 || x.dtype == KAC_F16 || x.dtype == KAC_F64);
}

static kac_status node_add(kac_grad_tape *t, int *id, kac_tensor x, float *grad) {
    KAC_TRY(grow((void **)&t->node, &t->cap_nodes, t->n_nodes, sizeof *t->node));
    kac_tape_node n = {.size = (int64_t)kac_dtype_bytes(x.dtype), .dense = kac_tensor_contiguous(x), .grad = grad};
    span_of(x, &n.first, &n.end);
    n.owned = grad == NULL;
    *id = t->n_nodes;
    t->node[t->n_nodes++] = n;
    return KAC_OK;
}

static size_t grad_bytes(const kac_tape_node *n) {
    return (size_t)((int64_t)(n->end - n->first) / n->size) * sizeof(float);
}

/* The gradient of node `id`, zero at first. */
static kac_status node_grad(kac_grad_tape *t, int id, float **grad) {
    kac_tape_node *n = &t->node[id];
    if (n->grad == NULL) {
        KAC_TRY(block_take(t, &n->grad, grad_bytes(n)));
        if (!t->grads.counting) memset(n->grad, 0, grad_bytes(n));
    }
    *grad = n->grad;
    return KAC_OK;
}

/* x's place in the gradient of a node that contains it. */
static kac_status view_grad(kac_grad_tape *t, int id, kac_tensor x, kac_tensor *view) {
    float *grad;
    KAC_TRY(node_grad(t, id, &grad));
    *view = x;
    view->dtype = KAC_F32;
    view->data = grad + ((int64_t)((uintptr_t)x.data - t->node[id].first) / t->node[id].size);
    return KAC_OK;
}

static void forget_nodes(kac_grad_tape *t, int n_nodes) {
    while (t->n_nodes > n_nodes) {
        const kac_tape_node *n = &t->node[--t->n_nodes];
        if (n->owned && n->grad != NULL) block_give(t, n->grad);
    }
}

static kac_status entry_add(kac_grad_tape *t, kac_tape_entry e) {
    KAC_TRY(grow((void **)&t->entry, &t->cap_entries, t->n_entries, sizeof *t->entry));
    t->entry[t->n_entries++] = e;
    return KAC_OK;
}

/* Several nodes that are read as one, bytes [first, end), become the parts of a new one. */
static kac_status join(kac_grad_tape *t, int *id, uintptr_t first, uintptr_t end, const int *part, int n_parts) {
    kac_tape_entry e = {
        .op = KAC_N_OPS, .notes = kac_arena_mark(&t->notes), .n_nodes = t->n_nodes, .n_in = n_parts, .out = t->n_nodes};
    kac_tape_node n = t->node[part[0]];
    e.in = note(t, part, (size_t)n_parts * sizeof *part);
    if (e.in == NULL) return KAC_E_MEMORY;
    n.first = first, n.end = end;
    for (int i = 0; i < n_parts; i++) {
        const kac_tape_node *p = &t->node[part[i]];
        KAC_ASSERT(p->size == n.size);
        n.first = KAC_MIN(n.first, p->first);
        n.end = KAC_MAX(n.end, p->end);
    }
    n.dense = n.owned = true;
    n.grad = NULL;
    KAC_TRY(grow((void **)&t->node, &t->cap_nodes, t->n_nodes, sizeof *t->node));
    *id = t->n_nodes;
    t->node[t->n_nodes++] = n;
    return entry_add(t, e);
}

/* The node that holds x, LEAF for none. Parts of several (results side by side, slices of one buffer written one by one) are
 * joined. */
static kac_status node_of(kac_grad_tape *t, kac_tensor x, int *id) {
    enum { MAX_PARTS = 256 };
    int part[MAX_PARTS], n_parts = 0;
    uintptr_t first, end;
    *id = LEAF;
    if (!floating(x)) return KAC_OK;
    span_of(x, &first, &end);
    bool whole = false;
    for (int i = t->n_nodes - 1; i >= 0 && !whole; i--) {
        const kac_tape_node *n = &t->node[i];
        if (n->end <= first || end <= n->first) continue;
        if (n_parts == MAX_PARTS)
            return KAC_FAIL(KAC_E_UNSUPPORTED, "tape: a tensor was put together from more than %d results", MAX_PARTS);
        part[n_parts++] = i;
        whole = n->dense && n->first <= first && end <= n->end;
    }
    if (n_parts == 0) return KAC_OK;
    if (n_parts == 1 && t->node[part[0]].first <= first && end <= t->node[part[0]].end) {
        *id = part[0];
        return KAC_OK;
    }
    return join(t, id, first, end, part, n_parts);
}

/* Fails when x would be written over a result. */
static kac_status check_fresh(const kac_grad_tape *t, const char *op, kac_tensor x) {
    uintptr_t first, end;
    if (!floating(x)) return KAC_OK;
    span_of(x, &first, &end);
    for (int i = t->n_nodes - 1; i >= 0; i--) {
        const kac_tape_node *n = &t->node[i];
        if (n->end <= first || end <= n->first || (!n->dense && !kac_tensor_contiguous(x))) continue;
        return KAC_FAIL(KAC_E_UNSUPPORTED,
                        "%s writes over a result that its gradient needs; while a tape records, take fresh memory", op);
    }
    return KAC_OK;
}

/* ---- recording ---- */

/* Host lists of an op's arguments go to the notes. */
static kac_status keep_lists(kac_grad_tape *t, kac_op op, void *args) {
    const void **list = NULL;
    size_t n = 0;
    if (op == KAC_OP_conv2d) {
        kac_conv2d_args *a = args;
        list = (const void **)(void *)&a->o.row_index, n = (size_t)a->x.shape[0] * sizeof(int);
    } else if (op == KAC_OP_attention) {
        kac_attention_args *a = args;
        list = (const void **)(void *)&a->o.kv_row, n = (size_t)a->q.shape[0] * sizeof(int);
    } else if (op == KAC_OP_modulate) {
        kac_modulate_args *a = args;
        list = (const void **)(void *)&a->row_index, n = (size_t)a->x.shape[0] * sizeof(int);
    } else if (op == KAC_OP_gather) {
        kac_gather_args *a = args;
        list = (const void **)(void *)&a->index, n = (size_t)a->n_index * sizeof(int);
    } else if (op == KAC_OP_lincomb) {
        kac_lincomb_args *a = args;
        list = (const void **)(void *)&a->coef, n = (size_t)(a->n_terms * a->n_coef) * sizeof(double);
    }
    if (list == NULL || *list == NULL) return KAC_OK;
    *list = note(t, *list, n);
    return *list == NULL ? KAC_E_MEMORY : KAC_OK;
}

static kac_status record(kac_tape *tape, kac_op op, const void *args, size_t n_args) {
    kac_grad_tape *t = (kac_grad_tape *)(void *)tape;
    kac_tensor in[KAC_MAX_TERMS];
    int id[KAC_MAX_TERMS];
    bool needed = false;
    const int n_in = kac_op_inputs(op, args, in);
    const kac_tensor out = kac_op_output(op, args);
    for (int i = 0; i < n_in; i++) {
        KAC_TRY(node_of(t, in[i], &id[i]));
        needed |= id[i] != LEAF;
    }
    KAC_TRY(check_fresh(t, kac_op_name(op), out));
    if (!needed || !floating(out)) return KAC_OK;
    kac_tape_entry e = {
        .op = op, .n_args = n_args, .notes = kac_arena_mark(&t->notes), .n_nodes = t->n_nodes, .n_in = n_in};
    e.args = note(t, args, n_args);
    e.in = note(t, id, (size_t)n_in * sizeof *id);
    if (e.args == NULL || e.in == NULL) return KAC_E_MEMORY;
    KAC_TRY(keep_lists(t, op, e.args));
    KAC_TRY(node_add(t, &e.out, out, NULL));
    return entry_add(t, e);
}

static kac_status record_segment(kac_tape *tape, kac_segment_fn run, const void *args, size_t n_args, kac_tensor out) {
    kac_grad_tape *t = (kac_grad_tape *)(void *)tape;
    kac_ctx *c = t->c;
    KAC_TRY(check_fresh(t, "segment", out));
    kac_tape_entry e = {
        .op = KAC_N_OPS, .run = run, .n_args = n_args, .notes = kac_arena_mark(&t->notes), .n_nodes = t->n_nodes};
    e.args = note(t, args, n_args);
    if (e.args == NULL) return KAC_E_MEMORY;
    const size_t mark = kac_arena_mark(&c->scratch);
    c->tape = NULL;
    const kac_status s = run(c, e.args);
    kac_arena_release(&c->scratch, mark);
    c->tape = &t->tape;
    KAC_TRY(s);
    KAC_TRY(node_add(t, &e.out, out, NULL)); /* whether it depends on what is watched, the replay will see */
    return entry_add(t, e);
}

static void *keep(kac_tape *tape, const void *data, size_t n) {
    return note((kac_grad_tape *)(void *)tape, data, n);
}

kac_status kac_segment(kac_ctx *c, kac_segment_fn run, const void *args, size_t n_args, kac_tensor out) {
    KAC_ASSERT(kac_tensor_contiguous(out) && out.data != NULL);
    if (c->tape == NULL || c->tape->segment == NULL) return run(c, args);
    return c->tape->segment(c->tape, run, args, n_args, out);
}

const void *kac_tape_keep(kac_ctx *c, const void *data, size_t n) {
    return data == NULL || c->tape == NULL || c->tape->keep == NULL ? data : c->tape->keep(c->tape, data, n);
}

/* ---- open, watch, seed ---- */

kac_status kac_tape_open(kac_grad_tape *t, kac_ctx *c, size_t grads_bytes) {
    static const size_t generous = (size_t)64 << 30, notes_bytes = (size_t)4 << 30;
    *t = (kac_grad_tape){.tape = {.record = record, .segment = record_segment, .keep = keep}, .c = c};
    if (c->keep_all) kac_tape_keep_segments(t);
    kac_status s = KAC_OK;
    if (c->scratch.counting)
        kac_arena_init_counting(&t->grads, "gradient");
    else
        s = kac_arena_init(&t->grads, "gradient", grads_bytes == 0 ? generous : grads_bytes);
    if (s == KAC_OK) s = kac_arena_init(&t->notes, "tape", notes_bytes);
    if (s != KAC_OK) kac_tape_close(t);
    return s;
}

void kac_tape_close(kac_grad_tape *t) {
    if (t->c != NULL && t->c->tape == &t->tape) t->c->tape = NULL;
    if (t->c != NULL) t->c->gradients -= t->grads.peak;
    kac_arena_free(&t->grads);
    kac_arena_free(&t->notes);
    kac_free(t->node);
    kac_free(t->entry);
    kac_free(t->block);
    *t = (kac_grad_tape){0};
}

kac_status kac_tape_watch(kac_grad_tape *t, kac_tensor x, kac_tensor grad) {
    KAC_ASSERT(floating(x) && kac_tensor_contiguous(x) && kac_tensor_contiguous(grad) && grad.dtype == KAC_F32);
    KAC_ASSERT(kac_tensor_count(x) == kac_tensor_count(grad) && grad.data != NULL && !t->replaying);
    int id;
    return node_add(t, &id, x, grad.data);
}

void kac_tape_keep_segments(kac_grad_tape *t) {
    t->tape.segment = NULL;
}

void kac_tape_start(kac_grad_tape *t) {
    KAC_ASSERT(t->c->tape == NULL);
    t->c->tape = &t->tape;
}

void kac_tape_stop(kac_grad_tape *t) {
    t->c->tape = NULL;
}

/* to += from, n numbers each. */
static kac_status accumulate(kac_ctx *c, float *to, float *from, int64_t n) {
    const kac_tensor sum = kac_tensor_make(to, KAC_F32, 1, n), more = kac_tensor_make(from, KAC_F32, 1, n);
    static const double one[] = {1, 1};
    return c->ops->lincomb(c,
                           &(kac_lincomb_args){.out = sum, .n_terms = 2, .x = {sum, more}, .coef = one, .n_coef = 1});
}

kac_status kac_tape_seed(kac_grad_tape *t, kac_tensor y, kac_tensor grad) {
    KAC_ASSERT(kac_tensor_contiguous(y) && kac_tensor_contiguous(grad) && grad.dtype == KAC_F32);
    KAC_ASSERT(kac_tensor_count(y) == kac_tensor_count(grad) && !t->replaying && t->c->tape == NULL);
    int id;
    kac_tensor view;
    KAC_TRY(node_of(t, y, &id));
    if (id == LEAF) return KAC_OK;
    KAC_TRY(view_grad(t, id, y, &view));
    return accumulate(t->c, view.data, grad.data, kac_tensor_count(y));
}

/* ---- replay ---- */

static kac_status replay_op(kac_grad_tape *t, const kac_tape_entry *e) {
    kac_grads g = {0};
    kac_tensor in[KAC_MAX_TERMS];
    KAC_TRY(view_grad(t, e->out, kac_op_output(e->op, e->args), &g.out));
    kac_op_inputs(e->op, e->args, in);
    for (int i = 0; i < e->n_in; i++)
        if (e->in[i] != LEAF) KAC_TRY(view_grad(t, e->in[i], in[i], &g.in[i]));
    return kac_op_grad(t->c, e->op, e->args, &g);
}

static kac_status replay_join(kac_grad_tape *t, const kac_tape_entry *e) {
    for (int i = 0; i < e->n_in; i++) {
        const kac_tape_node n = t->node[e->in[i]], whole = t->node[e->out];
        float *part, *from = whole.grad + (int64_t)(n.first - whole.first) / n.size;
        KAC_TRY(node_grad(t, e->in[i], &part));
        KAC_TRY(accumulate(t->c, part, from, (int64_t)(n.end - n.first) / n.size));
    }
    return KAC_OK;
}

static kac_status replay_down_to(kac_grad_tape *t, int n_entries);

/* Runs the segment again, recorded above what is left of the tape, and walks that. */
static kac_status replay_segment(kac_grad_tape *t, const kac_tape_entry *e) {
    kac_ctx *c = t->c;
    const int n_entries = t->n_entries;
    const size_t mark = kac_arena_mark(&c->scratch);
    const kac_tape_node out = t->node[e->out];
    t->n_nodes = e->n_nodes; /* the walk above has used all others; the result's gradient is carried over by hand */
    kac_status (*tap)(void *self, const char *name, kac_tensor value) = c->tap;
    c->tap = NULL;
    c->tape = &t->tape;
    kac_status s = e->run(c, e->args);
    c->tape = NULL;
    c->tap = tap;
    int id = LEAF;
    const kac_tensor flat = kac_tensor_make((void *)out.first,
                                            out.size == 2   ? KAC_BF16
                                            : out.size == 4 ? KAC_F32
                                                            : KAC_F64,
                                            (int64_t)(out.end - out.first) / out.size);
    if (s == KAC_OK) s = node_of(t, flat, &id);
    const bool depends = s == KAC_OK && id != LEAF;
    KAC_ASSERT(!depends || (t->node[id].first == out.first && t->node[id].end == out.end)); /* out is written whole */
    if (depends)
        t->node[id].grad = out.grad;
    else
        block_give(t, out.grad);
    if (depends) s = replay_down_to(t, n_entries);
    forget_nodes(t, e->n_nodes);
    t->n_entries = n_entries;
    kac_arena_release(&c->scratch, mark);
    return s;
}

static kac_status replay_down_to(kac_grad_tape *t, int n_entries) {
    while (t->n_entries > n_entries) {
        const kac_tape_entry e = t->entry[--t->n_entries];
        if (t->node[e.out].grad != NULL) {
            if (e.run != NULL)
                KAC_TRY(replay_segment(t, &e));
            else if (e.op == KAC_N_OPS)
                KAC_TRY(replay_join(t, &e));
            else
                KAC_TRY(replay_op(t, &e));
        }
        forget_nodes(t, e.n_nodes);
        kac_arena_release(&t->notes, e.notes);
    }
    return KAC_OK;
}

kac_status kac_tape_replay(kac_grad_tape *t) {
    KAC_ASSERT(t->c->tape == NULL && !t->replaying);
    t->replaying = true;
    const kac_status s = replay_down_to(t, 0);
    t->n_entries = 0;
    forget_nodes(t, 0);
    kac_arena_release(&t->notes, 0);
    t->replaying = false;
    return s;
}
