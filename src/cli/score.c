/* kac score FILES…: pictures that exist already, judged and ranked. */
#include "cli.h"
#include "io/image.h"
#include "reward/image_reward.h"
#include "run/backend.h"
#include "show.h"
#include "weights.h"
#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_REWARDS = 16 };

static const kac_option_spec options[] = {
    {"reward", 0, KAC_OPT_TEXT, NULL, .meta = "NAME[=PATH][:WEIGHT]", .repeatable = true,
     .help = "clip, clip-logit, jpeg, shapes-judge; several are added (default: clip, the shipped one)"},
    {"prompt", 'p', KAC_OPT_TEXT, NULL, .meta = "TEXT",
     .help = "of all pictures (default: what each PNG says of itself)"},
    {"keep", 0, KAC_OPT_INT, "0", 0, 1e9, .meta = "K", .help = "list the best K only (0: all)"},
    {"csv", 0, KAC_OPT_TEXT, NULL, .meta = "FILE", .help = "also write the list there"},
    {"threads", 't', KAC_OPT_INT, "0", 0, 1024, .meta = "N", .help = "0: every CPU"},
    {"dtype", 0, KAC_OPT_CHOICE, "f32", .choices = "f32|bf16", .help = "arithmetic"},
    {"backend", 0, KAC_OPT_CHOICE, "cpu", .choices = KAC_BACKEND_CHOICES,
     .help = "ref: slow, the formulas in plain C; onednn: products by oneDNN, for comparison"},
    {NULL},
};

typedef struct scored {
    char *path, *prompt; /* prompt NULL: none known */
    double total, values[MAX_REWARDS];
} scored;

typedef struct job {
    const kac_cli *cli;
    scored *items;
    int n, cap;
    kac_ctx ctx;
    kac_image_reward *rewards[MAX_REWARDS];
    int n_rewards;
    const char **prompts; /* one of each item, for the rewards */
} job;

/* ---- which files ---- */

/* Takes `path` over. */
static kac_status add_item(job *j, char *path) {
    if (path == NULL) return KAC_E_MEMORY;
    if (j->n == j->cap) {
        const int cap = j->cap > 0 ? 2 * j->cap : 64;
        scored *more = kac_realloc(j->items, (size_t)cap * sizeof *more);
        if (more == NULL) {
            kac_free(path);
            return KAC_E_MEMORY;
        }
        j->items = more;
        j->cap = cap;
    }
    j->items[j->n++] = (scored){.path = path};
    return KAC_OK;
}

static bool is_picture(const char *name) {
    const char *dot = strrchr(name, '.');
    static const char *const ends[] = {".png", ".jpg", ".jpeg", ".bmp"};
    for (int i = 0; dot != NULL && i < KAC_COUNT_OF(ends); i++)
        if (strcasecmp(dot, ends[i]) == 0) return true;
    return false;
}

/* The pictures of a folder, not those of folders in it. */
static kac_status add_folder(job *j, const char *folder) {
    DIR *dir = opendir(folder);
    if (dir == NULL) return KAC_FAIL(KAC_E_IO, "cannot read %s: %s", folder, strerror(errno));
    kac_status s = KAC_OK;
    for (const struct dirent *e = readdir(dir); e != NULL && s == KAC_OK; e = readdir(dir))
        if (e->d_name[0] != '.' && is_picture(e->d_name)) s = add_item(j, kac_path_join(folder, e->d_name));
    closedir(dir);
    return s;
}

static int by_path(const void *a, const void *b) {
    return strcmp(((const scored *)a)->path, ((const scored *)b)->path);
}

static kac_status find_files(job *j) {
    for (int i = 0; i < j->cli->n_words; i++) {
        const char *word = j->cli->words[i];
        const int before = j->n;
        if (!kac_dir_exists(word)) {
            KAC_TRY(add_item(j, kac_strdup(word)));
            continue;
        }
        KAC_TRY(add_folder(j, word));
        if (j->n == before) return KAC_FAIL(KAC_E_USAGE, "%s holds no pictures (.png, .jpg, .bmp)", word);
        qsort(j->items + before, (size_t)(j->n - before), sizeof *j->items, by_path);
    }
    return KAC_OK;
}

/* ---- prompts ---- */

/* What a PNG says of itself: our own chunk, or the first lines of "parameters" as other tools write it. */
static kac_status prompt_of(char **out, const char *path) {
    kac_png_texts texts = {0};
    *out = NULL;
    if (kac_png_texts_read(&texts, path) != KAC_OK) return KAC_OK; /* no PNG, or none with texts */
    const char *own = kac_png_texts_get(&texts, "kac"), *other = kac_png_texts_get(&texts, "parameters");
    cJSON *json = own == NULL ? NULL : cJSON_Parse(own);
    const char *prompt = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(json, "prompt"));
    kac_status s = KAC_OK;
    if (prompt != NULL) {
        *out = kac_strdup(prompt);
        if (*out == NULL) s = KAC_E_MEMORY;
    } else if (other != NULL) {
        const char *negative = strstr(other, "\nNegative prompt:"), *steps = strstr(other, "\nSteps:");
        const char *end = negative != NULL ? negative : steps != NULL ? steps : other + strlen(other);
        *out = kac_format("%.*s", (int)KAC_MIN(end - other, 1 << 20), other);
        if (*out == NULL) s = KAC_E_MEMORY;
    }
    cJSON_Delete(json);
    kac_png_texts_free(&texts);
    return s;
}

static kac_status find_prompts(job *j) {
    const char *given = kac_options_text(j->cli->options, "prompt");
    bool needed = false;
    for (int i = 0; i < j->n_rewards; i++) needed = needed || j->rewards[i]->needs_prompt;
    j->prompts = kac_alloc((size_t)j->n * sizeof *j->prompts);
    if (j->prompts == NULL) return KAC_E_MEMORY;
    for (int i = 0; i < j->n; i++) {
        scored *item = &j->items[i];
        if (given != NULL)
            item->prompt = kac_strdup(given);
        else
            KAC_TRY(prompt_of(&item->prompt, item->path));
        if (item->prompt == NULL && needed)
            return KAC_FAIL(KAC_E_USAGE, "%s does not say its prompt; give --prompt", item->path);
        j->prompts[i] = item->prompt == NULL ? "" : item->prompt;
    }
    return KAC_OK;
}

/* ---- scoring ---- */

static kac_status open_rewards(job *j) {
    const kac_options *o = j->cli->options;
    const int n = kac_options_count(o, "reward");
    if (n > MAX_REWARDS) return KAC_FAIL(KAC_E_USAGE, "at most %d rewards can be added", MAX_REWARDS);
    char *weights = kac_cli_weights_dir();
    kac_status s = weights == NULL ? KAC_E_MEMORY : KAC_OK;
    for (int i = 0; i < KAC_MAX(n, 1) && s == KAC_OK; i++) {
        char *spec = kac_image_reward_expand(n > 0 ? kac_options_text_at(o, "reward", i) : "clip", weights);
        s = spec == NULL ? KAC_E_MEMORY : kac_image_reward_open(&j->rewards[i], &j->ctx, spec);
        j->n_rewards += s == KAC_OK;
        kac_free(spec);
    }
    kac_free(weights);
    return s;
}

static kac_status score_one(job *j, int i) {
    scored *item = &j->items[i];
    kac_image image;
    KAC_TRY(kac_image_load(&image, item->path));
    const kac_picture picture = {.rgb = image.rgb, .width = image.width, .height = image.height, .prompt = i};
    kac_status s = KAC_OK;
    for (int k = 0; k < j->n_rewards && s == KAC_OK; k++) {
        s = kac_image_reward_score(j->rewards[k], &picture, 1, &item->values[k]);
        if (s == KAC_OK && !isfinite(item->values[k]))
            s = KAC_FAIL(KAC_E_NONFINITE, "reward %s of %s is not a number", j->rewards[k]->name, item->path);
        item->total += j->rewards[k]->weight * item->values[k];
    }
    kac_image_free(&image);
    return s;
}

static int by_total(const void *a, const void *b) {
    const scored *x = a, *y = b;
    return x->total != y->total ? (x->total < y->total ? 1 : -1) : strcmp(x->path, y->path);
}

/* ---- results ---- */

static void csv_text(kac_text *t, const char *s) {
    kac_text_add(t, "\"");
    for (; *s != '\0'; s++) kac_text_add(t, *s == '"' ? "\"\"" : "%c", *s);
    kac_text_add(t, "\"");
}

static kac_status write_csv(const job *j, int n, const char *path) {
    kac_text t = {0};
    kac_text_add(&t, "rank,file,reward");
    for (int k = 0; k < j->n_rewards; k++) {
        kac_text_add(&t, ",");
        csv_text(&t, j->rewards[k]->name);
    }
    kac_text_add(&t, ",prompt\n");
    for (int i = 0; i < n; i++) {
        kac_text_add(&t, "%d,", i + 1);
        csv_text(&t, j->items[i].path);
        kac_text_add(&t, ",%.9g", j->items[i].total);
        for (int k = 0; k < j->n_rewards; k++) kac_text_add(&t, ",%.9g", j->items[i].values[k]);
        kac_text_add(&t, ",");
        csv_text(&t, j->items[i].prompt == NULL ? "" : j->items[i].prompt);
        kac_text_add(&t, "\n");
    }
    const kac_status s = t.failed ? KAC_E_MEMORY : kac_file_write(path, t.s, t.n);
    kac_text_free(&t);
    return s;
}

static kac_status print(const job *j, int n) {
    cJSON *d = cJSON_CreateObject(), *rows = cJSON_AddArrayToObject(d, "images");
    for (int i = 0; i < n; i++) {
        const scored *item = &j->items[i];
        cJSON *row = cJSON_CreateObject();
        if (j->cli->json) cJSON_AddNumberToObject(row, "rank", i + 1); /* people see the order */
        cJSON_AddStringToObject(row, "file", item->path);
        cJSON_AddNumberToObject(row, "reward", item->total);
        if (j->cli->json) {
            cJSON *values = cJSON_AddObjectToObject(row, "rewards");
            for (int k = 0; k < j->n_rewards; k++)
                cJSON_AddNumberToObject(values, j->rewards[k]->name, item->values[k]);
        }
        if (item->prompt != NULL) cJSON_AddStringToObject(row, "prompt", item->prompt);
        cJSON_AddItemToArray(rows, row);
    }
    return kac_cli_show(j->cli, d);
}

static kac_status score_all(job *j) {
    const kac_options *o = j->cli->options;
    const struct kac_ops *ops;
    KAC_TRY(find_files(j));
    KAC_TRY(kac_backend_find(&ops, kac_options_text(o, "backend")));
    const kac_dtype dtype = strcmp(kac_options_text(o, "dtype"), "bf16") == 0 ? KAC_BF16 : KAC_F32;
    KAC_TRY(kac_ctx_open(&j->ctx, ops, dtype, (int)kac_options_int(o, "threads"), NULL));
    KAC_TRY(open_rewards(j));
    KAC_TRY(find_prompts(j));
    for (int k = 0; k < j->n_rewards; k++)
        if (j->rewards[k]->needs_prompt) KAC_TRY(kac_image_reward_prepare(j->rewards[k], j->prompts, j->n));
    for (int i = 0; i < j->n; i++) KAC_TRY(score_one(j, i));
    qsort(j->items, (size_t)j->n, sizeof *j->items, by_total);
    const int keep = (int)kac_options_int(o, "keep"), n = keep > 0 ? KAC_MIN(keep, j->n) : j->n;
    if (kac_options_text(o, "csv") != NULL) KAC_TRY(write_csv(j, n, kac_options_text(o, "csv")));
    return print(j, n);
}

static kac_status run(kac_cli *cli) {
    job j = {.cli = cli};
    const kac_status s = score_all(&j);
    for (int k = 0; k < j.n_rewards; k++) kac_image_reward_close(j.rewards[k]);
    if (j.ctx.ops != NULL) kac_ctx_close(&j.ctx);
    for (int i = 0; i < j.n; i++) {
        kac_free(j.items[i].path);
        kac_free(j.items[i].prompt);
    }
    kac_free(j.items);
    kac_free(j.prompts);
    return s;
}

const kac_cli_command kac_cli_score = {
    .name = "score",
    .summary = "Scores and ranks pictures that exist already, or those of folders.",
    .words_usage = "FILES...",
    .min_words = 1,
    .max_words = -1,
    .options = options,
    .notes = "examples:\n"
             "  kac score runs/stars --keep 3\n"
             "  kac score *.png --reward clip=models/clip-vit-large-patch14 --reward jpeg:-0.01 --prompt \"a cat\" "
             "--csv cats.csv\n",
    .run = run,
};
