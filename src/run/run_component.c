#include "run/run_component.h"
#include "run/adapters.h"

#include "io/safetensors.h"
#include "io/weights.h"
#include "model/clip.h"
#include "model/codec.h"
#include "model/unet.h"
#include "tensor/convert.h"
#include "tensor/tape.h"
#include <stdio.h>
#include <string.h>

enum {
    MAX_RESULTS = 3,
    MAX_INPUTS = 8,
    MAX_OUTPUTS = MAX_RESULTS + MAX_INPUTS,
    MAX_NAME = 40,
    MAX_ROWS = KAC_UNET_MAX_BATCH
};

/* Intermediate results, copied as they come; names and data on the heap. */
typedef struct tap_list {
    kac_ctx *c;
    kac_st_item *items;
    int n, cap;
} tap_list;

typedef struct job {
    const kac_run_component_args *a;
    kac_ctx c;
    kac_weights in;
    kac_source source; /* of the component */
    kac_lora_set *lora;
    kac_inversion_set embeddings;
    kac_st_item outputs[MAX_OUTPUTS];
    int n_outputs;
    tap_list taps;
    kac_grad_tape tape; /* with a->grad */
    kac_tensor grad[MAX_INPUTS];
    char grad_name[MAX_INPUTS][MAX_NAME]; /* "grad.sample" */
    int n_grads;
} job;

/* ---- tensors from and to files ---- */

static bool is_float(kac_dtype d) {
    return d == KAC_F32 || d == KAC_F16 || d == KAC_BF16 || d == KAC_F64;
}

static kac_status find_input(const job *j, const char *name, int rank, kac_tensor *t) {
    if (kac_weights_entry_of(&j->in, name) == NULL)
        return KAC_FAIL(KAC_E_USAGE, "%s lacks the tensor \"%s\", which %s reads", j->a->in_path, name,
                        j->a->component);
    KAC_TRY(kac_weights_find(&j->in, name, t));
    if (rank >= 0 && t->rank != rank)
        return KAC_FAIL(KAC_E_SHAPE, "%s: \"%s\" has rank %d, %s wants rank %d", j->a->in_path, name, t->rank,
                        j->a->component, rank);
    if (kac_tensor_count(*t) == 0) return KAC_FAIL(KAC_E_SHAPE, "%s: \"%s\" is empty", j->a->in_path, name);
    return KAC_OK;
}

/* Floating point; rank 4 from NCHW to NHWC; f32 in c.run. */
static kac_status read_numbers(job *j, const char *name, int rank, kac_tensor *out) {
    kac_tensor t;
    KAC_TRY(find_input(j, name, rank, &t));
    if (!is_float(t.dtype))
        return KAC_FAIL(KAC_E_USAGE, "%s: \"%s\" is %s; it must be F32, F16, BF16 or F64", j->a->in_path, name,
                        kac_dtype_name(t.dtype));
    if (t.rank == 4) t = kac_tensor_transpose(kac_tensor_transpose(t, 1, 2), 2, 3);
    KAC_TRY(kac_take(out, &j->c.run, KAC_F32, t.rank, t.shape));
    return kac_copy(&j->c, out, t);
}

/* The same as an input of the network, whose gradient is wanted with --grad. */
static kac_status read_input(job *j, const char *name, int rank, kac_tensor *out) {
    KAC_TRY(read_numbers(j, name, rank, out));
    if (!j->a->grad) return KAC_OK;
    KAC_ASSERT(j->n_grads < MAX_INPUTS);
    kac_tensor *grad = &j->grad[j->n_grads];
    snprintf(j->grad_name[j->n_grads++], MAX_NAME, "grad.%s", name);
    KAC_TRY(kac_take(grad, &j->c.run, KAC_F32, out->rank, out->shape));
    memset(grad->data, 0, kac_tensor_bytes(*grad));
    return kac_tape_watch(&j->tape, *out, *grad);
}

/* Token ids on the heap. */
static kac_status read_ids(job *j, int32_t **ids, int64_t *n, int64_t *n_tokens) {
    kac_tensor t;
    KAC_TRY(find_input(j, "input_ids", 2, &t));
    if (t.dtype != KAC_I64 && t.dtype != KAC_I32)
        return KAC_FAIL(KAC_E_USAGE, "%s: \"input_ids\" is %s; it must be I64 or I32", j->a->in_path,
                        kac_dtype_name(t.dtype));
    const int64_t count = kac_tensor_count(t);
    *ids = kac_alloc((size_t)count * sizeof **ids);
    if (*ids == NULL) return KAC_E_MEMORY;
    for (int64_t i = 0; i < count; i++) {
        const double id = kac_element_load(t.data, t.dtype, i);
        (*ids)[i] =
            id >= 0 && id <= INT32_MAX ? (int32_t)id : -1; /* refused by the network, as outside its vocabulary */
    }
    *n = t.shape[0];
    *n_tokens = t.shape[1];
    return KAC_OK;
}

/* One number for all n rows, or one each. */
static kac_status read_timesteps(const job *j, int64_t n, double *out) {
    kac_tensor t;
    KAC_TRY(find_input(j, "timestep", -1, &t));
    const int64_t count = kac_tensor_count(t);
    if (t.rank > 1 || (count != 1 && count != n))
        return KAC_FAIL(KAC_E_SHAPE, "%s: \"timestep\" must be one number or %lld, one per row of \"sample\"",
                        j->a->in_path, (long long)n);
    for (int64_t i = 0; i < n; i++) {
        out[i] = kac_element_load(t.data, t.dtype, count == 1 ? 0 : i);
        if (!isfinite(out[i])) return KAC_FAIL(KAC_E_NONFINITE, "%s: \"timestep\" is not finite", j->a->in_path);
    }
    return KAC_OK;
}

/* Rank 4 from NHWC to NCHW. */
static void reference_shape(int64_t shape[KAC_MAX_RANK], kac_tensor t) {
    for (int i = 0; i < t.rank; i++) shape[i] = t.rank == 4 && i > 0 ? t.shape[i == 1 ? 3 : i - 1] : t.shape[i];
}

static kac_status as_reference(kac_ctx *c, kac_tensor *out, kac_tensor t) {
    if (t.rank == 4) t = kac_tensor_transpose(kac_tensor_transpose(t, 2, 3), 1, 2);
    return kac_copy(c, out, t);
}

static kac_status add_output(job *j, const char *name, kac_tensor t) {
    int64_t shape[KAC_MAX_RANK];
    reference_shape(shape, t);
    KAC_ASSERT(j->n_outputs < MAX_OUTPUTS);
    kac_tensor out;
    KAC_TRY(kac_take(&out, &j->c.run, KAC_F32, t.rank, shape));
    KAC_TRY(as_reference(&j->c, &out, t));
    j->outputs[j->n_outputs++] = (kac_st_item){.name = name, .tensor = out};
    return KAC_OK;
}

/* ---- taps ---- */

static kac_status keep_tap(void *self, const char *name, kac_tensor t) {
    tap_list *l = self;
    for (int i = 0; i < l->n; i++)
        if (strcmp(l->items[i].name, name) == 0) return KAC_OK; /* a repeated pass */
    if (l->n == l->cap) {
        const int cap = l->cap == 0 ? 64 : 2 * l->cap;
        kac_st_item *items = kac_realloc(l->items, (size_t)cap * sizeof *items);
        if (items == NULL) return KAC_E_MEMORY;
        l->items = items;
        l->cap = cap;
    }
    int64_t shape[KAC_MAX_RANK];
    reference_shape(shape, t);
    kac_tensor copy = kac_tensor_of(NULL, KAC_F32, t.rank, shape);
    char *own_name = kac_strdup(name);
    copy.data = kac_alloc(kac_tensor_bytes(copy));
    if (own_name == NULL || copy.data == NULL) {
        kac_free(own_name);
        kac_free(copy.data);
        return KAC_E_MEMORY;
    }
    l->items[l->n++] = (kac_st_item){.name = own_name, .tensor = copy};
    return as_reference(l->c, &copy, t);
}

static void free_taps(tap_list *l) {
    for (int i = 0; i < l->n; i++) {
        kac_free((char *)(uintptr_t)l->items[i].name);
        kac_free(l->items[i].tensor.data);
    }
    kac_free(l->items);
}

/* ---- the components ---- */

/* What one forward pass needs and leaves. */
typedef struct pass {
    const kac_unet *unet;
    const kac_unet_cond *cond;
    const kac_clip *clip;
    const kac_codec *codec;
    kac_tensor x;
    const double *timestep;
    const int32_t *ids;
    int64_t n_ids, n_tokens;
    kac_tensor out[3];
} pass;

/* Runs it as often as asked; the results of the last time stay in scratch. */
static kac_status repeat(job *j, pass *p, kac_status (*forward)(kac_ctx *c, pass *p)) {
    const int n = j->a->n_repeat > 1 && !j->a->grad ? j->a->n_repeat : 1; /* a recorded pass must stay in memory */
    const size_t mark = kac_arena_mark(&j->c.scratch);
    for (int i = 0; i < n; i++) {
        kac_arena_release(&j->c.scratch, mark);
        for (int k = 0; k < 3; k++) p->out[k] = (kac_tensor){0};
        const double start = kac_now_ms();
        KAC_TRY(forward(&j->c, p));
        if (j->a->repeat_ms != NULL && i < j->a->n_repeat) j->a->repeat_ms[i] = kac_now_ms() - start;
    }
    return KAC_OK;
}

/* ---- gradients ---- */

/* From here on the network is recorded, if gradients are wanted. */
static void begin(job *j) {
    if (j->a->grad) kac_tape_start(&j->tape);
}

/* grad.NAME of the file, if it is there, is what the results' gradients start from. */
static kac_status seed(job *j, const char *name, kac_tensor out, int *n_seeds) {
    char full[MAX_NAME];
    kac_tensor given = {0}, same = {0};
    snprintf(full, sizeof full, "grad.%s", name);
    if (kac_weights_entry_of(&j->in, full) == NULL) return KAC_OK;
    KAC_TRY(read_numbers(j, full, out.rank, &given));
    if (!kac_tensor_same_shape(given, out)) {
        char have[96], want[96];
        int64_t shape[KAC_MAX_RANK];
        reference_shape(shape, out);
        kac_tensor_text(kac_tensor_of(NULL, KAC_F32, out.rank, shape), want, sizeof want);
        reference_shape(shape, given);
        kac_tensor_text(kac_tensor_of(NULL, KAC_F32, given.rank, shape), have, sizeof have);
        return KAC_FAIL(KAC_E_SHAPE, "%s: \"%s\" is %s, the output is %s", j->a->in_path, full, have, want);
    }
    same = kac_tensor_of(given.data, KAC_F32, out.rank, out.shape);
    (*n_seeds)++;
    return kac_tape_seed(&j->tape, out, same);
}

/* All results to the outputs; then, backward, the gradients of all inputs. Before the network is freed. */
static kac_status deliver(job *j, const pass *p, const char *const *names) {
    int n_seeds = 0;
    if (j->a->grad) kac_tape_stop(&j->tape);
    for (int i = 0; i < MAX_RESULTS; i++)
        if (p->out[i].data != NULL) KAC_TRY(add_output(j, names[i], p->out[i]));
    if (!j->a->grad) return KAC_OK;
    for (int i = 0; i < MAX_RESULTS; i++)
        if (p->out[i].data != NULL) KAC_TRY(seed(j, names[i], p->out[i], &n_seeds));
    if (n_seeds == 0)
        return KAC_FAIL(KAC_E_USAGE, "%s has no gradient to start from: put \"grad.%s\" (the output's shape) in it",
                        j->a->in_path, names[0]);
    KAC_TRY(kac_tape_replay(&j->tape));
    for (int i = 0; i < j->n_grads; i++) KAC_TRY(add_output(j, j->grad_name[i], j->grad[i]));
    return KAC_OK;
}

/* ---- networks ---- */

static kac_status forward_unet(kac_ctx *c, pass *p) {
    return kac_unet_forward(&p->out[0], p->unet, c, p->x, p->timestep, p->cond, NULL);
}

/* A tensor's numbers on the heap, [*rows, *n]; a tensor of rank 1 has rows of one. */
static kac_status read_reals(job *j, const char *name, double **out, int64_t *rows, int64_t *n) {
    kac_tensor t;
    KAC_TRY(find_input(j, name, -1, &t));
    const int64_t count = kac_tensor_count(t);
    *rows = t.rank == 0 ? 1 : t.shape[0];
    *n = count / *rows;
    *out = kac_alloc((size_t)count * sizeof **out);
    if (*out == NULL) return KAC_E_MEMORY;
    for (int64_t i = 0; i < count; i++) (*out)[i] = kac_element_load(t.data, t.dtype, i);
    return KAC_OK;
}

/* What the network's configuration asks for beside sample and timestep, and what is there of it. */
static kac_status read_conditions(job *j, const kac_unet_config *cfg, kac_unet_inputs *in, double **owned) {
    int64_t rows = 0, n = 0;
    if (cfg->conditional) KAC_TRY(read_input(j, "encoder_hidden_states", 3, &in->tokens));
    in->n = cfg->conditional ? in->tokens.shape[0] : 0;
    if (cfg->addition == KAC_ADDITION_TEXT_TIME) {
        KAC_TRY(read_input(j, "text_embeds", 2, &in->pooled));
        KAC_TRY(read_reals(j, "time_ids", &owned[0], &rows, &n));
        if (rows != in->n)
            return KAC_FAIL(KAC_E_SHAPE, "%s: \"time_ids\" has %lld rows, \"encoder_hidden_states\" %lld",
                            j->a->in_path, (long long)rows, (long long)in->n);
        in->time_ids = owned[0], in->n_time_ids = (int)n;
    }
    if (cfg->time_cond_dim > 0 && kac_weights_entry_of(&j->in, "timestep_cond") != NULL)
        KAC_TRY(read_input(j, "timestep_cond", 2, &in->timestep_cond));
    if (cfg->class_embed == KAC_CLASS_EMBED_NONE) return KAC_OK;
    if (cfg->class_embed != KAC_CLASS_EMBED_TABLE && cfg->class_embed != KAC_CLASS_EMBED_TIMESTEP) {
        KAC_TRY(read_input(j, "class_labels", 2, &in->label_rows));
        if (!cfg->conditional) in->n = in->label_rows.shape[0];
        return KAC_OK;
    }
    KAC_TRY(read_reals(j, "class_labels", &owned[1], &rows, &n));
    if (!cfg->conditional) in->n = rows;
    if (n != 1 || rows != in->n)
        return KAC_FAIL(KAC_E_SHAPE, "%s: \"class_labels\" must hold one number for each of %lld rows", j->a->in_path,
                        (long long)in->n);
    in->labels = owned[1];
    return KAC_OK;
}

static kac_status unet_with_prompt(job *j, pass *p) {
    double timestep[MAX_ROWS], *owned[2] = {NULL, NULL};
    KAC_TRY(read_input(j, "sample", 4, &p->x));
    if (p->x.shape[0] > MAX_ROWS)
        return KAC_FAIL(KAC_E_SHAPE, "%s: \"sample\" has %lld rows; at most %d", j->a->in_path,
                        (long long)p->x.shape[0], MAX_ROWS);
    KAC_TRY(read_timesteps(j, p->x.shape[0], timestep));
    p->timestep = timestep;
    const kac_unet_config *cfg = kac_unet_config_of(p->unet);
    kac_unet_cond *cond = NULL;
    kac_unet_inputs in = {0};
    kac_status s = read_conditions(j, cfg, &in, owned);
    if (s == KAC_OK) begin(j);
    if (s == KAC_OK && (cfg->conditional || cfg->class_embed != KAC_CLASS_EMBED_NONE))
        s = kac_unet_condition(&cond, p->unet, &j->c, &in);
    p->cond = cond;
    if (s == KAC_OK) s = repeat(j, p, forward_unet);
    if (s == KAC_OK) s = deliver(j, p, (const char *const[]){"sample"});
    kac_unet_cond_free(cond);
    kac_free(owned[0]), kac_free(owned[1]);
    return s;
}

static kac_status run_unet(job *j) {
    kac_unet *unet;
    KAC_TRY(kac_unet_load_from(&unet, &j->c, &j->source));
    pass p = {.unet = unet};
    const kac_status s = unet_with_prompt(j, &p);
    kac_unet_free(unet);
    return s;
}

static kac_status forward_text(kac_ctx *c, pass *p) {
    kac_clip_text_out out;
    KAC_TRY(kac_clip_text(&out, p->clip, c, p->ids, p->n_ids, p->n_tokens, 0));
    p->out[0] = out.hidden;
    p->out[1] = out.pooled;
    p->out[2] = out.embeds;
    return KAC_OK;
}

static kac_status forward_clip(kac_ctx *c, pass *p) {
    KAC_TRY(kac_clip_image_embeds(&p->out[0], p->clip, c, p->x, true));
    KAC_TRY(kac_clip_text_embeds(&p->out[1], p->clip, c, p->ids, p->n_ids, p->n_tokens, true));
    return kac_clip_logits(&p->out[2], p->clip, c, p->out[0], p->out[1]);
}

static kac_status text_or_both(job *j, pass *p, bool image, int32_t **ids) {
    static const char *const names[2][3] = {{"last_hidden_state", "pooler_output", "text_embeds"},
                                            {"image_embeds", "text_embeds", "logits_per_image"}};
    if (image && !kac_clip_config_of(p->clip)->has_vision)
        return KAC_FAIL(KAC_E_UNSUPPORTED, "%s holds a text encoder only; run text_encoder", j->source.path);
    if (image) KAC_TRY(read_input(j, "pixel_values", 4, &p->x));
    KAC_TRY(read_ids(j, ids, &p->n_ids, &p->n_tokens));
    p->ids = *ids;
    begin(j);
    KAC_TRY(repeat(j, p, image ? forward_clip : forward_text));
    return deliver(j, p, names[image]);
}

static kac_status run_clip_part(job *j, bool image) {
    kac_clip *clip;
    int32_t *ids = NULL;
    KAC_TRY(kac_clip_load_from(&clip, &j->c, &j->source));
    pass p = {.clip = clip};
    const kac_status s = text_or_both(j, &p, image, &ids);
    kac_free(ids);
    kac_clip_free(clip);
    return s;
}

static kac_status run_text_encoder(job *j) {
    return run_clip_part(j, false);
}
static kac_status run_clip(job *j) {
    return run_clip_part(j, true);
}

static kac_status forward_encode(kac_ctx *c, pass *p) {
    return kac_codec_encode(&p->out[0], p->codec, c, p->x);
}
static kac_status forward_decode(kac_ctx *c, pass *p) {
    return kac_codec_decode(&p->out[0], p->codec, c, p->x);
}

static kac_status run_codec_part(job *j, bool decode) {
    kac_codec *codec;
    KAC_TRY(kac_codec_load_from(&codec, &j->c, &j->source));
    pass p = {.codec = codec};
    const char *code = kac_codec_config_of(codec)->tiny ? "latents" : "moments";
    kac_status s = read_input(j, decode ? "z" : "sample", 4, &p.x);
    begin(j);
    if (s == KAC_OK) s = repeat(j, &p, decode ? forward_decode : forward_encode);
    if (s == KAC_OK) s = deliver(j, &p, (const char *const[]){decode ? "sample" : code});
    kac_codec_free(codec);
    return s;
}

static kac_status run_vae_encode(job *j) {
    return run_codec_part(j, false);
}
static kac_status run_vae_decode(job *j) {
    return run_codec_part(j, true);
}

static const struct {
    const char *name, *folder;
    kac_status (*run)(job *j);
    int part; /* of LoRA files; −1: none */
} components[] = {{"unet", "unet", run_unet, KAC_LORA_UNET},
                  {"text_encoder", "text_encoder", run_text_encoder, KAC_LORA_TEXT},
                  {"text_encoder_2", "text_encoder_2", run_text_encoder, KAC_LORA_TEXT_2},
                  {"clip", "clip", run_clip, -1},
                  {"vae.encode", "vae", run_vae_encode, -1},
                  {"vae.decode", "vae", run_vae_decode, -1}};

/* ---- the whole ---- */

/* What is added to the component, and whether all that a LoRA has for it found its layer. */
static kac_status open_adapters(job *j, int part) {
    if (j->a->options == NULL) return KAC_OK;
    KAC_TRY(kac_adapters_open(&j->lora, &j->embeddings, j->a->options));
    if ((j->lora != NULL && part < 0) || (j->embeddings.n > 0 && part != KAC_LORA_TEXT && part != KAC_LORA_TEXT_2))
        return KAC_FAIL(KAC_E_USAGE, "%s takes no --lora or no --embedding", j->a->component);
    j->source.lora = j->lora, j->source.lora_part = part < 0 ? KAC_LORA_UNET : (kac_lora_part)part;
    j->source.embeddings = j->embeddings.n > 0 ? &j->embeddings : NULL;
    return KAC_OK;
}

static kac_status run_in_ctx(job *j, kac_status (*run)(job *j)) {
    j->taps.c = &j->c;
    if (j->a->taps_path != NULL) {
        j->c.tap = keep_tap;
        j->c.tap_self = &j->taps;
    }
    if (j->a->grad) KAC_TRY(kac_tape_open(&j->tape, &j->c, 0));
    KAC_TRY(run(j));
    if (j->lora != NULL)
        KAC_TRY(
            kac_lora_set_check(j->lora, 1u << j->source.lora_part, kac_options_bool(j->a->options, "lora-partial")));
    KAC_TRY(kac_st_write(j->a->out_path, j->outputs, j->n_outputs, NULL, 0));
    return j->a->taps_path == NULL ? KAC_OK : kac_st_write(j->a->taps_path, j->taps.items, j->taps.n, NULL, 0);
}

static kac_status run_with_input(job *j, kac_status (*run)(job *j)) {
    KAC_TRY(kac_ctx_open(&j->c, j->a->ops, j->a->dtype, j->a->n_threads, NULL));
    const kac_status s = run_in_ctx(j, run);
    kac_tape_close(&j->tape);
    free_taps(&j->taps);
    kac_ctx_close(&j->c);
    return s;
}

kac_status kac_run_component(const kac_run_component_args *a) {
    for (int i = 0; i < KAC_COUNT_OF(components); i++) {
        if (strcmp(components[i].name, a->component) != 0) continue;
        job j = {.a = a};
        kac_status s = kac_source_open(&j.source, a->model_dir, components[i].folder);
        if (s == KAC_OK) s = kac_weights_open(&j.in, a->in_path);
        if (s == KAC_OK) s = open_adapters(&j, components[i].part);
        if (s == KAC_OK) s = run_with_input(&j, components[i].run);
        kac_weights_close(&j.in);
        kac_source_close(&j.source);
        kac_lora_set_close(j.lora);
        kac_inversion_set_close(&j.embeddings);
        return s;
    }
    return KAC_FAIL(KAC_E_USAGE,
                    "there is no component \"%s\" (unet, text_encoder, text_encoder_2, clip, vae.encode, vae.decode)",
                    a->component);
}
