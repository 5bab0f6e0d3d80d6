/* The stack machine that a pickle is a program for. */
#ifndef KAC_IO_PICKLE_MACHINE_H
#define KAC_IO_PICKLE_MACHINE_H

#include "io/pickle.h"

#define MARK UINT32_MAX

/* The machine while it runs. */
typedef struct kac_pickle_machine {
    kac_pickle *p;
    const char *path;
    const uint8_t *at, *end;
    kac_pickle_ref *stack, *memo; /* memo: MARK = empty */
    size_t n_stack, cap_stack, n_memo, cap_memo, n_moved;
    bool stopped;
} kac_pickle_machine;

/* An opcode's argument, decoded. */
typedef struct kac_pickle_argument {
    int64_t i;
    double r;
    const char *s, *s2; /* in the pickle */
    size_t n, n2;
} kac_pickle_argument;

#define BROKEN(m, what) KAC_FAIL(KAC_E_FORMAT, "%s: the pickle is broken: %s", (m)->path, (what))

static inline kac_pickle_value *kac_pickle_value_at(const kac_pickle_machine *m, kac_pickle_ref ref) {
    return &m->p->values[ref];
}

/* May move all values. */
kac_status kac_pickle_new(kac_pickle_machine *m, kac_pickle_ref *ref, kac_pickle_value v);
kac_status kac_pickle_push(kac_pickle_machine *m, kac_pickle_ref ref);
kac_status kac_pickle_push_value(kac_pickle_machine *m, kac_pickle_value v);
kac_status kac_pickle_pop(kac_pickle_machine *m, kac_pickle_ref *ref);
kac_status kac_pickle_top(const kac_pickle_machine *m, kac_pickle_value **v);
/* Appends copies of n references to a list or dict. */
kac_status kac_pickle_add_items(kac_pickle_machine *m, kac_pickle_value *list, const kac_pickle_ref *items, size_t n);

/* The opcodes GLOBAL, STACK_GLOBAL, REDUCE and NEWOBJ, NEWOBJ_EX, BUILD, BINPERSID: where other readers would run code. */
kac_status kac_pickle_op_global(kac_pickle_machine *m, const kac_pickle_argument *a);
kac_status kac_pickle_op_stack_global(kac_pickle_machine *m, const kac_pickle_argument *a);
kac_status kac_pickle_op_call(kac_pickle_machine *m, const kac_pickle_argument *a);
kac_status kac_pickle_op_call_with_keywords(kac_pickle_machine *m, const kac_pickle_argument *a);
kac_status kac_pickle_op_build(kac_pickle_machine *m, const kac_pickle_argument *a);
kac_status kac_pickle_op_storage(kac_pickle_machine *m, const kac_pickle_argument *a);

#endif
