#include "io/pickle_machine.h"
#include "io/pickle_names.h"
#include <string.h>

/* ---- tensors ---- */

static bool is_kind(const kac_pickle_machine *m, const kac_pickle_value *args, uint32_t i, kac_pickle_kind kind) {
    return i < args->list.n && kac_pickle_value_at(m, args->list.items[i])->kind == kind;
}

/* Equally many whole numbers ≥ 0 each. */
static bool is_layout(const kac_pickle_machine *m, const kac_pickle_value *shape, const kac_pickle_value *stride) {
    if (shape->list.n != stride->list.n) return false;
    for (uint32_t i = 0; i < shape->list.n; i++)
        if (!is_kind(m, shape, i, KAC_PICKLE_INT) || !is_kind(m, stride, i, KAC_PICKLE_INT) ||
            kac_pickle_value_at(m, shape->list.items[i])->i < 0 || kac_pickle_value_at(m, stride->list.items[i])->i < 0)
            return false;
    return true;
}

static kac_status rebuild(kac_pickle_machine *m, const kac_pickle_value *args, bool has_dtype, kac_pickle_value *out) {
    if (!is_kind(m, args, 0, KAC_PICKLE_STORAGE) || !is_kind(m, args, 1, KAC_PICKLE_INT) ||
        !is_kind(m, args, 2, KAC_PICKLE_LIST) || !is_kind(m, args, 3, KAC_PICKLE_LIST) ||
        (has_dtype && !is_kind(m, args, 6, KAC_PICKLE_NAME)))
        return BROKEN(m, "a tensor's description is not as PyTorch writes it");
    const kac_pickle_ref *items = args->list.items;
    const kac_pickle_value *offset = kac_pickle_value_at(m, items[1]);
    if (offset->i < 0 || !is_layout(m, kac_pickle_value_at(m, items[2]), kac_pickle_value_at(m, items[3])))
        return BROKEN(m, "a tensor's description is not as PyTorch writes it");
    *out = (kac_pickle_value){.kind = KAC_PICKLE_TENSOR, .dtype = kac_pickle_value_at(m, items[0])->dtype};
    out->tensor.storage = items[0];
    out->tensor.shape = items[2];
    out->tensor.stride = items[3];
    out->tensor.offset = offset->i;
    if (!has_dtype) return KAC_OK;
    const kac_pickle_name name = kac_pickle_name_of((int)kac_pickle_value_at(m, items[6])->i);
    if (name.kind != KAC_NAME_DTYPE) return BROKEN(m, "a tensor's dtype is none");
    out->dtype = (uint8_t)name.dtype;
    return KAC_OK;
}

/* ("storage", class, key, where, number of elements[, None]) */
kac_status kac_pickle_op_storage(kac_pickle_machine *m, const kac_pickle_argument *a) {
    (void)a;
    kac_pickle_ref ref;
    KAC_TRY(kac_pickle_pop(m, &ref));
    const kac_pickle_value *id = kac_pickle_value_at(m, ref);
    kac_pickle_name name = {.kind = KAC_NAME_OTHER};
    if (id->kind == KAC_PICKLE_LIST && is_kind(m, id, 1, KAC_PICKLE_NAME))
        name = kac_pickle_name_of((int)kac_pickle_value_at(m, id->list.items[1])->i);
    if (name.kind != KAC_NAME_STORAGE || !kac_pickle_is_text(kac_pickle_value_at(m, id->list.items[0]), "storage") ||
        !is_kind(m, id, 2, KAC_PICKLE_TEXT) || !is_kind(m, id, 4, KAC_PICKLE_INT) ||
        (id->list.n > 5 && !is_kind(m, id, 5, KAC_PICKLE_NONE)))
        return BROKEN(m, "something outside it is no storage");
    kac_pickle_value v = {.kind = KAC_PICKLE_STORAGE, .dtype = (uint8_t)name.dtype};
    v.storage.key = id->list.items[2];
    v.storage.n_elements = kac_pickle_value_at(m, id->list.items[4])->i;
    return kac_pickle_push_value(m, v);
}

/* ---- imported names ---- */

static kac_status push_name(kac_pickle_machine *m, const char *module, size_t n_module, const char *name,
                            size_t n_name) {
    const int index = kac_pickle_name_find(module, n_module, name, n_name);
    if (index >= 0) return kac_pickle_push_value(m, (kac_pickle_value){.kind = KAC_PICKLE_NAME, .i = index});
    char text[96];
    const size_t n = KAC_MIN(n_module, 45);
    for (size_t i = 0; i < n; i++) text[i] = module[i] < 32 || module[i] > 126 ? '?' : module[i];
    text[n] = '.';
    const size_t n2 = KAC_MIN(n_name, 45);
    for (size_t i = 0; i < n2; i++) text[n + 1 + i] = name[i] < 32 || name[i] > 126 ? '?' : name[i];
    text[n + 1 + n2] = 0;
    return KAC_FAIL(KAC_E_UNSUPPORTED,
                    "%s: wants Python to import %s, which is no tensor: refused (nothing in the file was run). Use a "
                    "safetensors file, or save the state_dict alone",
                    m->path, text);
}

kac_status kac_pickle_op_global(kac_pickle_machine *m, const kac_pickle_argument *a) {
    return push_name(m, a->s, a->n, a->s2, a->n2);
}

kac_status kac_pickle_op_stack_global(kac_pickle_machine *m, const kac_pickle_argument *a) {
    (void)a;
    kac_pickle_ref name, module;
    KAC_TRY(kac_pickle_pop(m, &name));
    KAC_TRY(kac_pickle_pop(m, &module));
    const kac_pickle_value *x = kac_pickle_value_at(m, module), *y = kac_pickle_value_at(m, name);
    if (x->kind != KAC_PICKLE_TEXT || y->kind != KAC_PICKLE_TEXT) return BROKEN(m, "an import without a name");
    return push_name(m, x->text.s, x->text.n, y->text.s, y->text.n);
}

/* A dict from () or ([(key, value), …],). */
static kac_status push_dict(kac_pickle_machine *m, const kac_pickle_value *args) {
    kac_pickle_ref ref;
    const kac_pickle_ref pairs = args->list.n > 0 ? args->list.items[0] : MARK;
    KAC_TRY(kac_pickle_new(m, &ref, (kac_pickle_value){.kind = KAC_PICKLE_DICT}));
    for (uint32_t i = 0; pairs != MARK && kac_pickle_value_at(m, pairs)->kind == KAC_PICKLE_LIST &&
                         i < kac_pickle_value_at(m, pairs)->list.n;
         i++) {
        const kac_pickle_value *pair = kac_pickle_value_at(m, kac_pickle_value_at(m, pairs)->list.items[i]);
        if (pair->kind != KAC_PICKLE_LIST || pair->list.n != 2)
            return BROKEN(m, "a dictionary of something else than pairs");
        KAC_TRY(kac_pickle_add_items(m, kac_pickle_value_at(m, ref), pair->list.items, 2));
    }
    return kac_pickle_push(m, ref);
}

/* What name(*args) stands for, on the stack. */
static kac_status apply(kac_pickle_machine *m, int index, kac_pickle_ref args_ref, int depth) {
    const kac_pickle_value *args = kac_pickle_value_at(m, args_ref);
    const kac_pickle_name name = kac_pickle_name_of(index);
    kac_pickle_value tensor;
    switch (name.kind) {
    case KAC_NAME_DICT:
        return push_dict(m, args);
    case KAC_NAME_PARAMETER_DICT:
        return kac_pickle_push_value(m, (kac_pickle_value){.kind = KAC_PICKLE_DICT});
    case KAC_NAME_REBUILD_V1:
    case KAC_NAME_REBUILD_V2:
    case KAC_NAME_REBUILD_V3:
        KAC_TRY(rebuild(m, args, name.kind == KAC_NAME_REBUILD_V3, &tensor));
        return kac_pickle_push_value(m, tensor);
    case KAC_NAME_PARAMETER:
        return is_kind(m, args, 0, KAC_PICKLE_TENSOR) ? kac_pickle_push(m, args->list.items[0])
                                                      : BROKEN(m, "a parameter that is no tensor");
    case KAC_NAME_SIZE:
        return is_kind(m, args, 0, KAC_PICKLE_LIST) ? kac_pickle_push(m, args->list.items[0])
                                                    : BROKEN(m, "a size that is no list");
    case KAC_NAME_FROM_TYPE:
        if (depth > 0 || !is_kind(m, args, 0, KAC_PICKLE_NAME) || !is_kind(m, args, 2, KAC_PICKLE_LIST))
            return BROKEN(m, "a tensor's description is not as PyTorch writes it");
        return apply(m, (int)kac_pickle_value_at(m, args->list.items[0])->i, args->list.items[2], depth + 1);
    case KAC_NAME_OTHER:
        return kac_pickle_push_value(m, (kac_pickle_value){.kind = KAC_PICKLE_OTHER});
    case KAC_NAME_STORAGE:
    case KAC_NAME_DTYPE:
        break;
    }
    return BROKEN(m, "it calls what is no function");
}

/* REDUCE and NEWOBJ: name, arguments -> object. */
kac_status kac_pickle_op_call(kac_pickle_machine *m, const kac_pickle_argument *a) {
    (void)a;
    kac_pickle_ref args, name;
    KAC_TRY(kac_pickle_pop(m, &args));
    KAC_TRY(kac_pickle_pop(m, &name));
    if (kac_pickle_value_at(m, name)->kind != KAC_PICKLE_NAME || kac_pickle_value_at(m, args)->kind != KAC_PICKLE_LIST)
        return BROKEN(m, "it calls what is no function");
    return apply(m, (int)kac_pickle_value_at(m, name)->i, args, 0);
}

kac_status kac_pickle_op_call_with_keywords(kac_pickle_machine *m, const kac_pickle_argument *a) {
    kac_pickle_ref keywords;
    KAC_TRY(kac_pickle_pop(m, &keywords));
    return kac_pickle_op_call(m, a);
}

/* An object's state: of interest only where it is a dict of parameters. */
kac_status kac_pickle_op_build(kac_pickle_machine *m, const kac_pickle_argument *a) {
    (void)a;
    kac_pickle_ref state;
    kac_pickle_value *object;
    KAC_TRY(kac_pickle_pop(m, &state));
    KAC_TRY(kac_pickle_top(m, &object));
    if (object->kind != KAC_PICKLE_DICT) return KAC_OK;
    const kac_pickle_value *parameters = kac_pickle_key(m->p, kac_pickle_value_at(m, state), "_parameters");
    if (parameters == NULL || parameters == object || parameters->kind != KAC_PICKLE_DICT) return KAC_OK;
    return kac_pickle_add_items(m, object, parameters->list.items, parameters->list.n);
}
