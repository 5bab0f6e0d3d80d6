/* Scratch memory of a block: opened on entry, closed on exit. While a tape records nothing is released and nothing is
 * overwritten, since the replay reads it; these three functions are the only place that knows. */
#ifndef KAC_SCOPE_H
#define KAC_SCOPE_H

#include "tensor/ops.h"

static inline size_t kac_scope_open(const kac_ctx *c) {
    return kac_arena_mark(&c->scratch);
}

static inline void kac_scope_close(kac_ctx *c, size_t mark) {
    if (c->tape == NULL) kac_arena_release(&c->scratch, mark);
}

/* `t` as the place for a result that replaces it, or no tensor (the front then takes a fresh one). */
static inline kac_tensor kac_scope_reuse(const kac_ctx *c, kac_tensor t) {
    return c->tape == NULL ? t : (kac_tensor){0};
}

#endif
