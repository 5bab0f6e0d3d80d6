#include "run/convert_parts.h"
#include "tensor/convert.h"
#include <math.h>
#include <string.h>

/* Tensors on their way to the file. */
typedef struct source {
    const kac_weights *w;
    const kac_st_item *items;
    void *buffer;
    size_t n_buffer;
} source;

static bool is_float(int dtype) {
    return dtype == KAC_F32 || dtype == KAC_F16 || dtype == KAC_BF16 || dtype == KAC_F64;
}

static kac_status convert(source *s, const kac_weights_entry *e, kac_tensor from, kac_tensor to) {
    const size_t n_bytes = kac_tensor_bytes(to);
    if (n_bytes > s->n_buffer) {
        kac_free(s->buffer);
        s->n_buffer = n_bytes;
        s->buffer = kac_alloc(n_bytes);
        if (s->buffer == NULL) return KAC_E_MEMORY;
    }
    const int64_t n = kac_tensor_count(to);
    for (int64_t i = 0; i < n; i++) {
        const double v = kac_element_load(from.data, from.dtype, i);
        kac_element_store(s->buffer, to.dtype, i, v);
        if (isfinite(v) && !isfinite(kac_element_load(s->buffer, to.dtype, i)))
            return KAC_FAIL(KAC_E_NONFINITE, "%s: %s holds %g, which %s cannot: take bf16 or f32", s->w->path, e->name,
                            v, kac_dtype_name(to.dtype));
    }
    return KAC_OK;
}

static kac_status fetch(void *self, int i, const void **data) {
    source *s = self;
    const kac_weights_entry *e = &s->w->entries[i];
    kac_tensor t;
    KAC_TRY(kac_weights_view(s->w, e, &t));
    *data = t.data;
    if (t.dtype == s->items[i].tensor.dtype) return KAC_OK;
    KAC_TRY(convert(s, e, t, s->items[i].tensor));
    *data = s->buffer;
    return KAC_OK;
}

/* What the file will hold; a tensor that cannot be read is refused before anything is written. */
static kac_status plan(kac_convert_job *j, kac_st_item *items, const kac_weights *w) {
    for (int i = 0; i < w->n_entries; i++) {
        const kac_weights_entry *e = &w->entries[i];
        if (e->dtype < 0 || e->rank > KAC_MAX_RANK) {
            kac_tensor none;
            return kac_weights_view(w, e, &none);
        }
        const int dtype = j->a->dtype >= 0 && is_float(e->dtype) ? j->a->dtype : e->dtype;
        items[i] = (kac_st_item){.name = e->name, .tensor = kac_tensor_of(NULL, (kac_dtype)dtype, e->rank, e->shape)};
        j->r->bytes += (double)kac_tensor_bytes(items[i].tensor);
    }
    j->r->n_tensors += w->n_entries;
    return KAC_OK;
}

kac_status kac_convert_weights(kac_convert_job *j, const char *path, const kac_weights *w, const kac_st_pair *metadata,
                               int n_metadata) {
    kac_st_item *items = kac_alloc(sizeof *items * (size_t)KAC_MAX(w->n_entries, 1));
    if (items == NULL) return KAC_E_MEMORY;
    source s = {.w = w, .items = items};
    kac_status status = plan(j, items, w);
    if (status == KAC_OK) status = kac_st_write_fetched(path, items, w->n_entries, metadata, n_metadata, fetch, &s);
    kac_free(s.buffer);
    kac_free(items);
    return status;
}

kac_status kac_convert_json(const char *path, const cJSON *json) {
    char *text = cJSON_Print(json);
    char *lines = text == NULL ? NULL : kac_format("%s\n", text);
    const kac_status s = lines == NULL ? KAC_E_MEMORY : kac_file_write(path, lines, strlen(lines));
    kac_free(lines);
    cJSON_free(text);
    return s;
}

kac_status kac_convert_copy(const char *from_dir, const char *to_dir, const char *name) {
    char *from = kac_path_join(from_dir, name), *to = kac_path_join(to_dir, name), *data = NULL;
    size_t n = 0;
    kac_status s = from == NULL || to == NULL ? KAC_E_MEMORY : kac_file_read(&data, &n, from, 256 << 20);
    if (s == KAC_OK) s = kac_file_write(to, data, n);
    kac_free(data);
    kac_free(from);
    kac_free(to);
    return s;
}
