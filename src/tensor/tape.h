/* The tape that goes backward: it watches ops as they run, then walks them in reverse and adds up gradients.
 *
 *     kac_grad_tape t;
 *     KAC_TRY(kac_tape_open(&t, c));
 *     const size_t mark = kac_arena_mark(&c->scratch);
 *     KAC_TRY(kac_tape_watch(&t, x, dx));            // dx, f32: dL/dx will be added to it
 *     kac_tape_start(&t);                            // from here on ops are recorded and scratch is kept
 *     … any model code …
 *     kac_tape_stop(&t);
 *     KAC_TRY(kac_tape_seed(&t, y, dy));             // dL/dy, as often as there are results
 *     KAC_TRY(kac_tape_replay(&t));                  // dx += …; the tape is empty afterwards and can record again
 *     kac_arena_release(&c->scratch, mark);
 *     kac_tape_close(&t);
 *
 * A tensor is known by where its numbers lie, so that slices, splits and reshapes of a result need nothing: a gradient by a view
 * is added to that part of the result's gradient. While the tape records no result may be written over (nn/scope.h sees to that);
 * an op that does so is refused. What does not depend on a watched tensor is not recorded.
 *
 * A segment (kac_segment) is recorded as one entry and keeps only its result: its ops run again, recorded, when the walk reaches
 * it. Segments may contain segments. So memory grows with what lies between segments, and with the largest one. With c->keep_all they are
 * only their ops, and the same gradients come without the second run.
 *
 * Gradients are f32 whatever the dtype of activations. Those of results live in an arena of the tape from their first use to
 * their last; in a plan run it counts. Same bits for any number of threads. */
#ifndef KAC_TAPE_H
#define KAC_TAPE_H

#include "ops.h"

struct kac_tape_node;
struct kac_tape_entry;
struct kac_tape_block;

typedef struct kac_grad_tape {
    kac_tape tape; /* first: what ops see */
    kac_ctx *c;
    kac_arena grads; /* gradients of results */
    kac_arena notes; /* copies of arguments and host lists; real memory in a plan run too */
    struct kac_tape_node *node;
    struct kac_tape_entry *entry;
    struct kac_tape_block *block; /* of grads, by address */
    int n_nodes, n_entries, n_blocks, cap_nodes, cap_entries, cap_blocks;
    bool replaying;
} kac_grad_tape;

/* grads_bytes: of gradients, 0: a generous reservation. */
kac_status kac_tape_open(kac_grad_tape *t, kac_ctx *c, size_t grads_bytes);
void kac_tape_close(kac_grad_tape *t); /* a zeroed tape is fine */

/* dL/dx is wanted, added to grad: f32 of x's shape, contiguous as x, the caller's. For a weight: kac_weight_identity(w). */
kac_status kac_tape_watch(kac_grad_tape *t, kac_tensor x, kac_tensor grad);
/* Records the ops of segments one by one, so that nothing runs twice: where memory is no matter. Before start. */
void kac_tape_keep_segments(kac_grad_tape *t);
void kac_tape_start(kac_grad_tape *t);
void kac_tape_stop(kac_grad_tape *t);
/* dL/dy += grad (f32, contiguous). Nothing when y does not depend on anything watched. y is a result or a dense part of one. */
kac_status kac_tape_seed(kac_grad_tape *t, kac_tensor y, kac_tensor grad);
kac_status kac_tape_replay(kac_grad_tape *t);

/* Runs run(c, args), as one entry if a tape records: `args` (n_args bytes) is copied and read again at the replay, so what it
 * points to must live until then (kac_tape_keep). `out` is taken before, written whole by run, and all that is read of it later.
 * run must leave its inputs as they are even when nothing records (kac_scope_reuse only of `out`): it reads them twice. */
kac_status kac_segment(kac_ctx *c, kac_segment_fn run, const void *args, size_t n_args, kac_tensor out);
/* A copy of host data that lives as long as the recording; the data itself when nothing records. NULL: out of memory. */
const void *kac_tape_keep(kac_ctx *c, const void *data, size_t n);

#endif
