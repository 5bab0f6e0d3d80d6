#include "run/convert.h"
#include "model/checkpoint.h"
#include "model/ldm_write.h"
#include "run/convert_parts.h"
#include <dirent.h>
#include <errno.h>
#include <ftw.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static bool ends_with(const char *s, const char *end) {
    const size_t n = strlen(s), n_end = strlen(end);
    return n >= n_end && strcmp(s + n - n_end, end) == 0;
}

static bool holds(const char *dir, const char *name) {
    char *path = kac_path_join(dir, name);
    const bool there = path != NULL && kac_file_exists(path);
    kac_free(path);
    return there;
}

/* ---- one file of weights ---- */

/* The metadata of a safetensors file and what lay beside a pickle's tensors go along. */
static kac_status convert_weights(kac_convert_job *j) {
    enum { MAX_METADATA = 64 };
    kac_weights w;
    kac_st_pair pairs[MAX_METADATA] = {{"format", "pt"}};
    int n = 1;
    KAC_TRY(kac_weights_open(&w, j->a->in));
    const cJSON *item, *all = cJSON_GetObjectItemCaseSensitive(w.files[0].header.root, "__metadata__");
    cJSON_ArrayForEach(item, all) {
        if (n == MAX_METADATA) break;
        if (strcmp(item->string, "format") != 0) pairs[n++] = (kac_st_pair){item->string, item->valuestring};
    }
    j->r->kind = "weights";
    const kac_status s = kac_convert_weights(j, j->a->out, &w, pairs, n);
    kac_weights_close(&w);
    return s;
}

/* ---- one network's folder ---- */

static const char *stem_of(const kac_json *config) {
    const cJSON *name = cJSON_GetObjectItemCaseSensitive(config->root, "_class_name");
    return cJSON_IsString(name) ? "diffusion_pytorch_model" : "model";
}

static kac_status write_network(kac_convert_job *j, const char *dir, const kac_source *s) {
    const kac_st_pair format = {"format", "pt"};
    KAC_TRY(kac_dir_make(dir));
    char *config = kac_path_join(dir, "config.json"), *file = kac_format("%s/%s.safetensors", dir, stem_of(&s->config));
    kac_status status = config == NULL || file == NULL ? KAC_E_MEMORY : kac_convert_json(config, s->config.root);
    if (status == KAC_OK) status = kac_convert_weights(j, file, &s->weights, &format, 1);
    kac_free(config);
    kac_free(file);
    return status;
}

static kac_status open_network(kac_source *s, const char *dir, const char *variant) {
    kac_json config;
    char *path = kac_path_join(dir, "config.json");
    kac_status status = path == NULL ? KAC_E_MEMORY : kac_json_load(&config, path);
    kac_free(path);
    KAC_TRY(status);
    status = kac_source_open_variant(s, dir, stem_of(&config), variant);
    kac_json_free(&config);
    return status;
}

static kac_status convert_network(kac_convert_job *j, const char *to) {
    kac_source s;
    KAC_TRY(open_network(&s, j->a->in, j->a->variant));
    j->r->kind = "network";
    const kac_st_pair format = {"format", "pt"};
    const kac_status status =
        ends_with(to, ".safetensors") ? kac_convert_weights(j, to, &s.weights, &format, 1) : write_network(j, to, &s);
    kac_source_close(&s);
    return status;
}

/* ---- folder to folder ---- */

static kac_status copy_folder(const char *from, const char *to) {
    DIR *d = opendir(from);
    if (d == NULL) return KAC_FAIL(KAC_E_IO, "%s cannot be read: %s", from, strerror(errno));
    kac_status s = kac_dir_make(to);
    for (const struct dirent *e; s == KAC_OK && (e = readdir(d)) != NULL;)
        if (e->d_name[0] != '.' && holds(from, e->d_name)) s = kac_convert_copy(from, to, e->d_name);
    closedir(d);
    return s;
}

static kac_status copy_component(kac_convert_job *j, const char *to, const char *name) {
    char *from_dir = kac_path_join(j->a->in, name), *to_dir = kac_path_join(to, name);
    kac_status s = from_dir == NULL || to_dir == NULL ? KAC_E_MEMORY : KAC_OK;
    if (s == KAC_OK && holds(from_dir, "config.json")) {
        kac_source source;
        s = open_network(&source, from_dir, j->a->variant);
        if (s == KAC_OK) s = write_network(j, to_dir, &source);
        kac_source_close(&source);
    } else if (s == KAC_OK) {
        s = kac_dir_exists(from_dir)
                ? copy_folder(from_dir, to_dir)
                : KAC_FAIL(KAC_E_IO, "model_index.json names %s, but there is no folder %s", name, from_dir);
    }
    kac_free(from_dir);
    kac_free(to_dir);
    return s;
}

static bool plain_name(const char *name) {
    return name[0] != '_' && name[0] != '.' && strchr(name, '/') == NULL;
}

static kac_status convert_folder(kac_convert_job *j, const char *to) {
    kac_checkpoint m;
    KAC_TRY(kac_checkpoint_open(&m, j->a->in, NULL));
    j->r->kind = "folder";
    kac_status s = kac_dir_make(to);
    for (const cJSON *v = m.index.root->child; v != NULL && s == KAC_OK; v = v->next)
        if (kac_checkpoint_has(&m, v->string) && plain_name(v->string)) s = copy_component(j, to, v->string);
    if (s == KAC_OK) s = kac_convert_copy(j->a->in, to, "model_index.json");
    kac_checkpoint_close(&m);
    return s;
}

/* ---- one file to a folder ---- */

static kac_status write_part(kac_convert_job *j, const kac_checkpoint *m, const char *to, const char *name) {
    const bool network = strncmp(name, "tokenizer", 9) != 0 && strcmp(name, "scheduler") != 0;
    char *dir = kac_path_join(to, name), *file = kac_path_join(dir == NULL ? "" : dir, "scheduler_config.json");
    kac_status s = dir == NULL || file == NULL ? KAC_E_MEMORY : kac_dir_make(dir);
    if (s == KAC_OK && network) {
        kac_source source;
        s = kac_checkpoint_source(&source, m, name);
        if (s == KAC_OK) s = write_network(j, dir, &source);
        kac_source_close(&source);
    } else if (s == KAC_OK && name[0] == 's') {
        kac_json config;
        s = kac_checkpoint_scheduler(&config, m);
        if (s == KAC_OK) s = kac_convert_json(file, config.root);
        kac_json_free(&config);
    } else if (s == KAC_OK) {
        const bool open = strcmp(name, "tokenizer_2") == 0 || m->ldm.family == KAC_LDM_SD2;
        s = kac_convert_tokenizer(dir, j->a->merges, open ? "!" : "<|endoftext|>");
    }
    kac_free(dir);
    kac_free(file);
    return s;
}

static kac_status convert_to_folder(kac_convert_job *j, const char *to) {
    kac_checkpoint m;
    KAC_TRY(kac_checkpoint_open(&m, j->a->in, NULL));
    j->r->kind = "folder";
    kac_status s = kac_dir_make(to);
    for (const cJSON *v = m.index.root->child; v != NULL && s == KAC_OK; v = v->next)
        if (kac_checkpoint_has(&m, v->string)) s = write_part(j, &m, to, v->string);
    char *path = kac_path_join(to, "model_index.json");
    if (s == KAC_OK) s = path == NULL ? KAC_E_MEMORY : kac_convert_json(path, m.index.root);
    kac_free(path);
    kac_checkpoint_close(&m);
    return s;
}

/* ---- a folder to one file ---- */

/* What one file is made of; the sources stay open while their views are written. */
typedef struct single {
    kac_checkpoint m;
    kac_source sources[4];
    kac_weights all;
    kac_st_pair pairs[8];
    char *texts[8], *keys[8]; /* of pairs */
    int n_pairs;
} single;

static kac_status add_config(single *w, const char *component, const cJSON *config) {
    const int i = w->n_pairs++;
    char *text = cJSON_PrintUnformatted(config);
    w->texts[i] = text == NULL ? NULL : kac_strdup(text);
    w->keys[i] = kac_format(KAC_LDM_CONFIG_KEY "%s", component);
    cJSON_free(text);
    w->pairs[i] = (kac_st_pair){w->keys[i], w->texts[i]};
    return w->texts[i] == NULL || w->keys[i] == NULL ? KAC_E_MEMORY : KAC_OK;
}

/* SD 2 is told from SD 1 by its tower's activation. */
static const char *text_prefix(const single *w, bool second, bool *open) {
    const bool two = kac_checkpoint_has(&w->m, "text_encoder_2");
    const cJSON *act = cJSON_GetObjectItemCaseSensitive(w->sources[2].config.root, "hidden_act");
    *open = second || (!two && cJSON_IsString(act) && strcmp(act->valuestring, "gelu") == 0);
    if (second)
        return kac_checkpoint_has(&w->m, "text_encoder") ? "conditioner.embedders.1.model."
                                                         : "conditioner.embedders.0.model.";
    if (two) return "conditioner.embedders.0.transformer.";
    return *open ? "cond_stage_model.model." : "cond_stage_model.transformer.";
}

static kac_status add_network(single *w, int i) {
    static const char *const names[] = {"unet", "vae", "text_encoder", "text_encoder_2"};
    bool open;
    if (!kac_checkpoint_has(&w->m, names[i])) return KAC_OK;
    KAC_TRY(kac_checkpoint_source(&w->sources[i], &w->m, names[i]));
    KAC_TRY(add_config(w, names[i], w->sources[i].config.root));
    if (i == 0) return kac_ldm_write_unet(&w->all, &w->sources[i]);
    if (i == 1) return kac_ldm_write_vae(&w->all, &w->sources[i]);
    const char *prefix = text_prefix(w, i == 3, &open);
    return kac_ldm_write_text(&w->all, &w->sources[i], prefix, open);
}

static kac_status fill_single(single *w, const kac_convert_args *a) {
    kac_json scheduler;
    KAC_TRY(kac_checkpoint_open(&w->m, a->in, &(kac_checkpoint_options){.variant = a->variant}));
    w->all.path = kac_strdup(a->in);
    if (w->all.path == NULL) return KAC_E_MEMORY;
    w->pairs[w->n_pairs++] = (kac_st_pair){"format", "pt"};
    for (int i = 0; i < 4; i++) KAC_TRY(add_network(w, i));
    KAC_TRY(kac_checkpoint_scheduler(&scheduler, &w->m));
    const cJSON *type = cJSON_GetObjectItemCaseSensitive(scheduler.root, "prediction_type");
    const bool v = cJSON_IsString(type) && strcmp(type->valuestring, "v_prediction") == 0;
    const kac_status s = add_config(w, "scheduler", scheduler.root);
    kac_json_free(&scheduler);
    w->pairs[w->n_pairs++] = (kac_st_pair){"modelspec.prediction_type", v ? "v" : "epsilon"};
    return s;
}

static kac_status convert_to_single(kac_convert_job *j) {
    single *w = kac_alloc(sizeof *w);
    if (w == NULL) return KAC_E_MEMORY;
    j->r->kind = "single file";
    kac_status s = fill_single(w, j->a);
    if (s == KAC_OK) s = kac_convert_weights(j, j->a->out, &w->all, w->pairs, w->n_pairs);
    kac_weights_close(&w->all);
    for (int i = 0; i < 4; i++) kac_source_close(&w->sources[i]);
    for (int i = 0; i < KAC_COUNT_OF(w->texts); i++) kac_free(w->texts[i]), kac_free(w->keys[i]);
    kac_checkpoint_close(&w->m);
    kac_free(w);
    return s;
}

/* ---- the whole ---- */

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *at) {
    (void)st, (void)type, (void)at;
    return remove(path);
}

/* A new folder is made beside its place and moved there when it is whole. */
static kac_status to_new_folder(kac_convert_job *j, kac_status (*convert)(kac_convert_job *j, const char *to)) {
    if (kac_dir_exists(j->a->out)) return convert(j, j->a->out);
    char *to = kac_format("%s.part-%ld", j->a->out, (long)getpid());
    if (to == NULL) return KAC_E_MEMORY;
    kac_status s = convert(j, to);
    if (s == KAC_OK && rename(to, j->a->out) != 0)
        s = KAC_FAIL(KAC_E_IO, "cannot write %s: %s", j->a->out, strerror(errno));
    if (s != KAC_OK) nftw(to, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    kac_free(to);
    return s;
}

kac_status kac_convert(kac_convert_result *r, const kac_convert_args *a) {
    kac_convert_job j = {.a = a, .r = r};
    *r = (kac_convert_result){0};
    const bool to_file = ends_with(a->out, ".safetensors"), exists = kac_file_exists(a->out) || kac_dir_exists(a->out);
    if (exists && !a->overwrite) return KAC_FAIL(KAC_E_USAGE, "%s exists; --overwrite replaces it", a->out);
    if (exists && to_file != kac_file_exists(a->out))
        return KAC_FAIL(KAC_E_USAGE, "%s is a %s already; choose another name", a->out, to_file ? "folder" : "file");
    if (!kac_dir_exists(a->in)) {
        if (!kac_file_exists(a->in)) return KAC_FAIL(KAC_E_IO, "there is no file or folder %s", a->in);
        return to_file ? convert_weights(&j) : to_new_folder(&j, convert_to_folder);
    }
    if (holds(a->in, "model_index.json")) return to_file ? convert_to_single(&j) : to_new_folder(&j, convert_folder);
    if (!holds(a->in, "config.json"))
        return KAC_FAIL(KAC_E_FORMAT, "%s is neither a model (model_index.json) nor a network (config.json)", a->in);
    return to_file ? convert_network(&j, a->out) : to_new_folder(&j, convert_network);
}
