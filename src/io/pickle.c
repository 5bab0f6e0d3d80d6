#include "io/pickle_machine.h"
#include <string.h>

enum {
    MAX_PICKLE_BYTES = 64 << 20,
    MAX_VALUES = 4 << 20,
    MAX_ITEMS = 16 << 20, /* moved to the stack and into lists in all: bounds memory and time */
};

/* ---- growing ---- */

/* Room for n elements; array and cap are changed. */
static kac_status reserve(void **array, size_t *cap, size_t n, size_t n_element) {
    if (n <= *cap) return KAC_OK;
    const size_t larger = KAC_MAX(n, KAC_MAX(2 * *cap, 64));
    void *grown = kac_realloc(*array, larger * n_element);
    if (grown == NULL) return KAC_E_MEMORY;
    *array = grown;
    *cap = larger;
    return KAC_OK;
}

kac_status kac_pickle_new(kac_pickle_machine *m, kac_pickle_ref *ref, kac_pickle_value v) {
    kac_pickle *p = m->p;
    *ref = 0;
    if (p->n_values == MAX_VALUES) return BROKEN(m, "it holds too many values");
    KAC_TRY(reserve((void **)&p->values, &p->cap_values, p->n_values + 1, sizeof v));
    *ref = (kac_pickle_ref)p->n_values;
    p->values[p->n_values++] = v;
    return KAC_OK;
}

kac_status kac_pickle_push(kac_pickle_machine *m, kac_pickle_ref ref) {
    if (m->n_moved++ >= MAX_ITEMS) return BROKEN(m, "it holds too many values");
    KAC_TRY(reserve((void **)&m->stack, &m->cap_stack, m->n_stack + 1, sizeof ref));
    m->stack[m->n_stack++] = ref;
    return KAC_OK;
}

kac_status kac_pickle_push_value(kac_pickle_machine *m, kac_pickle_value v) {
    kac_pickle_ref ref;
    KAC_TRY(kac_pickle_new(m, &ref, v));
    return kac_pickle_push(m, ref);
}

kac_status kac_pickle_add_items(kac_pickle_machine *m, kac_pickle_value *list, const kac_pickle_ref *items, size_t n) {
    size_t cap = list->list.cap;
    if (n == 0) return KAC_OK;
    if ((m->n_moved += n) > MAX_ITEMS) return BROKEN(m, "it holds too many values");
    KAC_TRY(reserve((void **)&list->list.items, &cap, list->list.n + n, sizeof *items));
    list->list.cap = (uint32_t)cap;
    memcpy(list->list.items + list->list.n, items, n * sizeof *items);
    list->list.n += (uint32_t)n;
    return KAC_OK;
}

/* ---- the stack ---- */

kac_status kac_pickle_pop(kac_pickle_machine *m, kac_pickle_ref *ref) {
    *ref = 0;
    if (m->n_stack == 0 || m->stack[m->n_stack - 1] == MARK) return BROKEN(m, "it takes more than it gave");
    *ref = m->stack[--m->n_stack];
    return KAC_OK;
}

/* Everything above the last mark, which goes as well; the references stay readable until the next push. */
static kac_status pop_to_mark(kac_pickle_machine *m, const kac_pickle_ref **items, size_t *n) {
    size_t i = m->n_stack;
    *items = NULL;
    *n = 0;
    while (i > 0 && m->stack[i - 1] != MARK) i--;
    if (i == 0) return BROKEN(m, "a mark is missing");
    *items = m->stack + i;
    *n = m->n_stack - i;
    m->n_stack = i - 1;
    return KAC_OK;
}

kac_status kac_pickle_top(const kac_pickle_machine *m, kac_pickle_value **v) {
    *v = NULL;
    if (m->n_stack == 0 || m->stack[m->n_stack - 1] == MARK) return BROKEN(m, "it takes more than it gave");
    *v = kac_pickle_value_at(m, m->stack[m->n_stack - 1]);
    return KAC_OK;
}

/* A list or dict of the n references, on the stack. */
static kac_status push_items(kac_pickle_machine *m, kac_pickle_kind kind, const kac_pickle_ref *items, size_t n) {
    kac_pickle_ref ref;
    if (kind == KAC_PICKLE_DICT && n % 2 != 0) return BROKEN(m, "a key has no value");
    KAC_TRY(kac_pickle_new(m, &ref, (kac_pickle_value){.kind = (uint8_t)kind}));
    KAC_TRY(kac_pickle_add_items(m, kac_pickle_value_at(m, ref), items, n));
    return kac_pickle_push(m, ref);
}

/* ---- plain values ---- */

static kac_status op_ignore(kac_pickle_machine *m, const kac_pickle_argument *a) {
    (void)m, (void)a;
    return KAC_OK;
}
static kac_status op_protocol(kac_pickle_machine *m, const kac_pickle_argument *a) {
    return a->i <= 5 ? KAC_OK : BROKEN(m, "its protocol is newer than 5");
}
static kac_status op_stop(kac_pickle_machine *m, const kac_pickle_argument *a) {
    (void)a;
    m->stopped = true;
    return kac_pickle_pop(m, &m->p->root);
}
static kac_status op_mark(kac_pickle_machine *m, const kac_pickle_argument *a) {
    (void)a;
    return kac_pickle_push(m, MARK);
}
static kac_status op_pop(kac_pickle_machine *m, const kac_pickle_argument *a) {
    (void)a;
    if (m->n_stack == 0) return BROKEN(m, "it takes more than it gave");
    m->n_stack--;
    return KAC_OK;
}
static kac_status op_pop_mark(kac_pickle_machine *m, const kac_pickle_argument *a) {
    (void)a;
    const kac_pickle_ref *items;
    size_t n;
    return pop_to_mark(m, &items, &n);
}
static kac_status op_dup(kac_pickle_machine *m, const kac_pickle_argument *a) {
    (void)a;
    kac_pickle_value *v;
    KAC_TRY(kac_pickle_top(m, &v));
    return kac_pickle_push(m, m->stack[m->n_stack - 1]);
}
static kac_status op_none(kac_pickle_machine *m, const kac_pickle_argument *a) {
    (void)a;
    return kac_pickle_push_value(m, (kac_pickle_value){.kind = KAC_PICKLE_NONE});
}
static kac_status op_true(kac_pickle_machine *m, const kac_pickle_argument *a) {
    (void)a;
    return kac_pickle_push_value(m, (kac_pickle_value){.kind = KAC_PICKLE_BOOL, .i = 1});
}
static kac_status op_false(kac_pickle_machine *m, const kac_pickle_argument *a) {
    (void)a;
    return kac_pickle_push_value(m, (kac_pickle_value){.kind = KAC_PICKLE_BOOL, .i = 0});
}
static kac_status op_int(kac_pickle_machine *m, const kac_pickle_argument *a) {
    return kac_pickle_push_value(m, (kac_pickle_value){.kind = KAC_PICKLE_INT, .i = a->i});
}
static kac_status op_real(kac_pickle_machine *m, const kac_pickle_argument *a) {
    return kac_pickle_push_value(m, (kac_pickle_value){.kind = KAC_PICKLE_REAL, .r = a->r});
}
static kac_status op_text(kac_pickle_machine *m, const kac_pickle_argument *a) {
    kac_pickle_value v = {.kind = KAC_PICKLE_TEXT};
    v.text.s = a->s;
    v.text.n = a->n;
    return kac_pickle_push_value(m, v);
}
static kac_status op_bytes(kac_pickle_machine *m, const kac_pickle_argument *a) {
    (void)a;
    return kac_pickle_push_value(m, (kac_pickle_value){.kind = KAC_PICKLE_OTHER});
}

/* Two's complement of any length; longer than 64 bits it is of no interest. */
static kac_status op_long(kac_pickle_machine *m, const kac_pickle_argument *a) {
    if (a->n > 8) return op_bytes(m, a);
    uint64_t v = a->n > 0 && (a->s[a->n - 1] & 0x80) ? UINT64_MAX : 0;
    for (size_t i = a->n; i > 0; i--) v = v << 8 | (uint8_t)a->s[i - 1];
    return kac_pickle_push_value(m, (kac_pickle_value){.kind = KAC_PICKLE_INT, .i = (int64_t)v});
}

/* ---- lists, dicts, sets ---- */

static kac_status op_empty_list(kac_pickle_machine *m, const kac_pickle_argument *a) {
    (void)a;
    return push_items(m, KAC_PICKLE_LIST, NULL, 0);
}
static kac_status op_empty_dict(kac_pickle_machine *m, const kac_pickle_argument *a) {
    (void)a;
    return push_items(m, KAC_PICKLE_DICT, NULL, 0);
}

/* From the mark on. */
static kac_status op_list(kac_pickle_machine *m, const kac_pickle_argument *a) {
    (void)a;
    const kac_pickle_ref *items;
    size_t n;
    KAC_TRY(pop_to_mark(m, &items, &n));
    return push_items(m, KAC_PICKLE_LIST, items, n);
}
static kac_status op_dict(kac_pickle_machine *m, const kac_pickle_argument *a) {
    (void)a;
    const kac_pickle_ref *items;
    size_t n;
    KAC_TRY(pop_to_mark(m, &items, &n));
    return push_items(m, KAC_PICKLE_DICT, items, n);
}

static kac_status short_tuple(kac_pickle_machine *m, int n) {
    kac_pickle_ref items[3];
    for (int i = n - 1; i >= 0; i--) KAC_TRY(kac_pickle_pop(m, &items[i]));
    return push_items(m, KAC_PICKLE_LIST, items, (size_t)n);
}
static kac_status op_tuple1(kac_pickle_machine *m, const kac_pickle_argument *a) {
    (void)a;
    return short_tuple(m, 1);
}
static kac_status op_tuple2(kac_pickle_machine *m, const kac_pickle_argument *a) {
    (void)a;
    return short_tuple(m, 2);
}
static kac_status op_tuple3(kac_pickle_machine *m, const kac_pickle_argument *a) {
    (void)a;
    return short_tuple(m, 3);
}

/* Items into the list or dict on top of the stack. */
static kac_status add_to_top(kac_pickle_machine *m, kac_pickle_kind kind, const kac_pickle_ref *items, size_t n) {
    kac_pickle_value *v;
    KAC_TRY(kac_pickle_top(m, &v));
    if (v->kind == KAC_PICKLE_OTHER) return KAC_OK;
    if (v->kind != kind || (kind == KAC_PICKLE_DICT && n % 2 != 0)) return BROKEN(m, "items for what is no list");
    return kac_pickle_add_items(m, v, items, n);
}
static kac_status op_append(kac_pickle_machine *m, const kac_pickle_argument *a) {
    (void)a;
    kac_pickle_ref item;
    KAC_TRY(kac_pickle_pop(m, &item));
    return add_to_top(m, KAC_PICKLE_LIST, &item, 1);
}
static kac_status op_set_item(kac_pickle_machine *m, const kac_pickle_argument *a) {
    (void)a;
    kac_pickle_ref pair[2];
    KAC_TRY(kac_pickle_pop(m, &pair[1]));
    KAC_TRY(kac_pickle_pop(m, &pair[0]));
    return add_to_top(m, KAC_PICKLE_DICT, pair, 2);
}
static kac_status op_appends(kac_pickle_machine *m, const kac_pickle_argument *a) {
    (void)a;
    const kac_pickle_ref *items;
    size_t n;
    KAC_TRY(pop_to_mark(m, &items, &n));
    return add_to_top(m, KAC_PICKLE_LIST, items, n);
}
static kac_status op_set_items(kac_pickle_machine *m, const kac_pickle_argument *a) {
    (void)a;
    const kac_pickle_ref *items;
    size_t n;
    KAC_TRY(pop_to_mark(m, &items, &n));
    return add_to_top(m, KAC_PICKLE_DICT, items, n);
}

/* ---- the memo ---- */

static kac_status remember(kac_pickle_machine *m, uint64_t index) {
    kac_pickle_value *v;
    KAC_TRY(kac_pickle_top(m, &v));
    if (index >= MAX_VALUES) return BROKEN(m, "its memo is too large");
    const size_t before = m->cap_memo;
    KAC_TRY(reserve((void **)&m->memo, &m->cap_memo, index + 1, sizeof *m->memo));
    for (size_t i = before; i < m->cap_memo; i++) m->memo[i] = MARK;
    m->memo[index] = m->stack[m->n_stack - 1];
    m->n_memo++;
    return KAC_OK;
}
static kac_status op_put(kac_pickle_machine *m, const kac_pickle_argument *a) {
    return remember(m, (uint64_t)a->i);
}
static kac_status op_memoize(kac_pickle_machine *m, const kac_pickle_argument *a) {
    (void)a;
    return remember(m, m->n_memo);
}
static kac_status op_get(kac_pickle_machine *m, const kac_pickle_argument *a) {
    if (a->i < 0 || (uint64_t)a->i >= m->cap_memo || m->memo[a->i] == MARK)
        return BROKEN(m, "its memo has no such entry");
    return kac_pickle_push(m, m->memo[a->i]);
}

/* ---- opcodes ---- */

/* How an opcode's kac_pickle_argument is written. */
typedef enum form { NOTHING, U1, U2, I4, U4, U8, F8, BYTES1, BYTES4, BYTES8, TWO_LINES } form;

static const struct {
    form form;
    kac_status (*run)(kac_pickle_machine *m, const kac_pickle_argument *a);
} opcodes[256] = {
    [0x80] = {U1, op_protocol},
    [0x95] = {U8, op_ignore}, /* FRAME */
    ['.'] = {NOTHING, op_stop},
    ['('] = {NOTHING, op_mark},
    ['0'] = {NOTHING, op_pop},
    ['1'] = {NOTHING, op_pop_mark},
    ['2'] = {NOTHING, op_dup},
    ['N'] = {NOTHING, op_none},
    [0x88] = {NOTHING, op_true},
    [0x89] = {NOTHING, op_false},
    ['J'] = {I4, op_int},
    ['K'] = {U1, op_int},
    ['M'] = {U2, op_int},
    [0x8a] = {BYTES1, op_long},
    [0x8b] = {BYTES4, op_long},
    ['G'] = {F8, op_real},
    ['X'] = {BYTES4, op_text},
    [0x8c] = {BYTES1, op_text},
    [0x8d] = {BYTES8, op_text},
    ['T'] = {BYTES4, op_text}, /* the texts of Python 2 */
    ['U'] = {BYTES1, op_text},
    ['B'] = {BYTES4, op_bytes},
    ['C'] = {BYTES1, op_bytes},
    [0x8e] = {BYTES8, op_bytes},
    [0x96] = {BYTES8, op_bytes},
    [']'] = {NOTHING, op_empty_list},
    [')'] = {NOTHING, op_empty_list},
    ['}'] = {NOTHING, op_empty_dict},
    [0x8f] = {NOTHING, op_empty_list}, /* a set */
    ['a'] = {NOTHING, op_append},
    ['e'] = {NOTHING, op_appends},
    [0x90] = {NOTHING, op_appends}, /* to a set */
    ['l'] = {NOTHING, op_list},
    ['t'] = {NOTHING, op_list},
    [0x91] = {NOTHING, op_list}, /* a frozen set */
    [0x85] = {NOTHING, op_tuple1},
    [0x86] = {NOTHING, op_tuple2},
    [0x87] = {NOTHING, op_tuple3},
    ['d'] = {NOTHING, op_dict},
    ['s'] = {NOTHING, op_set_item},
    ['u'] = {NOTHING, op_set_items},
    ['c'] = {TWO_LINES, kac_pickle_op_global},
    [0x93] = {NOTHING, kac_pickle_op_stack_global},
    ['R'] = {NOTHING, kac_pickle_op_call},
    [0x81] = {NOTHING, kac_pickle_op_call},
    [0x92] = {NOTHING, kac_pickle_op_call_with_keywords},
    ['b'] = {NOTHING, kac_pickle_op_build},
    ['Q'] = {NOTHING, kac_pickle_op_storage},
    ['q'] = {U1, op_put},
    ['r'] = {U4, op_put},
    [0x94] = {NOTHING, op_memoize},
    ['h'] = {U1, op_get},
    ['j'] = {U4, op_get},
};

static const uint8_t *take(kac_pickle_machine *m, size_t n) {
    if (n > (size_t)(m->end - m->at)) return NULL;
    const uint8_t *p = m->at;
    m->at += n;
    return p;
}

/* A little-endian number of n bytes; false at the end of the pickle. */
static bool take_number(kac_pickle_machine *m, int n, uint64_t *out) {
    const uint8_t *p = take(m, (size_t)n);
    *out = 0;
    for (int i = n - 1; p != NULL && i >= 0; i--) *out = *out << 8 | p[i];
    return p != NULL;
}

static bool take_bytes(kac_pickle_machine *m, int n_length, kac_pickle_argument *a) {
    uint64_t n;
    if (!take_number(m, n_length, &n) || n > SIZE_MAX / 2) return false;
    a->n = n;
    a->s = (const char *)take(m, n);
    return a->s != NULL;
}

static bool take_line(kac_pickle_machine *m, const char **s, size_t *n) {
    const uint8_t *stop = memchr(m->at, '\n', (size_t)(m->end - m->at));
    if (stop == NULL) return false;
    *s = (const char *)m->at;
    *n = (size_t)(stop - m->at);
    m->at = stop + 1;
    return true;
}

static bool take_argument(kac_pickle_machine *m, form form, kac_pickle_argument *a) {
    static const uint8_t sizes[] = {[U1] = 1, [U2] = 2, [I4] = 4, [U4] = 4, [U8] = 8, [F8] = 8};
    uint64_t v;
    switch (form) {
    case NOTHING:
        return true;
    case BYTES1:
        return take_bytes(m, 1, a);
    case BYTES4:
        return take_bytes(m, 4, a);
    case BYTES8:
        return take_bytes(m, 8, a);
    case TWO_LINES:
        return take_line(m, &a->s, &a->n) && take_line(m, &a->s2, &a->n2);
    default:
        break;
    }
    if (!take_number(m, sizes[form], &v)) return false;
    a->i = form == I4 ? (int64_t)(int32_t)(uint32_t)v : (int64_t)v;
    if (form != F8) return true;
    v = __builtin_bswap64(v);
    memcpy(&a->r, &v, sizeof v);
    return true;
}

static kac_status run(kac_pickle_machine *m) {
    while (!m->stopped) {
        const uint8_t *code = take(m, 1);
        if (code == NULL) return BROKEN(m, "it is cut off");
        if (opcodes[*code].run == NULL)
            return KAC_FAIL(KAC_E_UNSUPPORTED, "%s: the pickle's opcode 0x%02x is none that files of tensors need",
                            m->path, *code);
        kac_pickle_argument a = {0};
        if (!take_argument(m, opcodes[*code].form, &a)) return BROKEN(m, "it is cut off");
        KAC_TRY(opcodes[*code].run(m, &a));
    }
    return KAC_OK;
}

kac_status kac_pickle_read(kac_pickle *p, const uint8_t *data, size_t n, size_t *n_used, const char *path) {
    *p = (kac_pickle){0};
    kac_pickle_machine m = {.p = p, .path = path, .at = data, .end = data + KAC_MIN(n, MAX_PICKLE_BYTES)};
    const kac_status s = run(&m);
    *n_used = (size_t)(m.at - data);
    kac_free(m.stack);
    kac_free(m.memo);
    if (s != KAC_OK) kac_pickle_free(p);
    return s;
}

void kac_pickle_free(kac_pickle *p) {
    for (size_t i = 0; i < p->n_values; i++)
        if (p->values[i].kind == KAC_PICKLE_LIST || p->values[i].kind == KAC_PICKLE_DICT)
            kac_free(p->values[i].list.items);
    kac_free(p->values);
    *p = (kac_pickle){0};
}

bool kac_pickle_is_text(const kac_pickle_value *v, const char *text) {
    return v->kind == KAC_PICKLE_TEXT && v->text.n == strlen(text) && memcmp(v->text.s, text, v->text.n) == 0;
}

const kac_pickle_value *kac_pickle_key(const kac_pickle *p, const kac_pickle_value *dict, const char *key) {
    for (uint32_t i = 0; dict->kind == KAC_PICKLE_DICT && i + 1 < dict->list.n; i += 2)
        if (kac_pickle_is_text(kac_pickle_at(p, dict->list.items[i]), key))
            return kac_pickle_at(p, dict->list.items[i + 1]);
    return NULL;
}
