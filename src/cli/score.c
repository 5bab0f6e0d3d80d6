/* kac score FILES…: pictures that exist already, judged and ranked. */
#include "cli.h"
#include "io/picture_prompt.h"
#include "io/utf8.h"
#include "run/backend.h"
#include "run/generate_job.h"
#include "score_files.h"
#include "show.h"
#include "weights.h"
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const kac_option_spec options[] = {
    KAC_REWARD_OPTIONS("what to score by", "clip, the shipped one"),
    {"prompt", 'p', KAC_OPT_TEXT, NULL, .meta = "TEXT",
     .help = "of all pictures (default: what each PNG says of itself)"},
    {"recursive", 'r', KAC_OPT_BOOL, "false", .help = "pictures of folders in folders too"},
    {"keep", 0, KAC_OPT_INT, "0", 0, 1e9, .meta = "K", .help = "list the best K only (0: all)"},
    {"copy-to", 0, KAC_OPT_TEXT, NULL, .meta = "DIR", .help = "copy the listed pictures there, as RANK-NAME"},
    {"csv", 0, KAC_OPT_TEXT, NULL, .meta = "FILE", .help = "also write the list there"},
    {"threads", 't', KAC_OPT_INT, "0", 0, 1024, .meta = "N", .help = "0: every CPU"},
    {"dtype", 0, KAC_OPT_CHOICE, "f32", .choices = "f32|bf16", .help = "arithmetic"},
    KAC_OPTION_BACKEND,
    {NULL},
};

typedef struct job {
    kac_cli *cli;
    kac_score_list list; /* the scored first and by rank, then those that failed */
    int n_scored, n_listed;
    kac_ctx ctx;
    kac_reward_set rewards;
    double drawn_ms; /* progress on a terminal */
} job;

/* ---- scoring ---- */

static kac_status find_items(job *j) {
    const kac_options *o = j->cli->options;
    const char *given = kac_options_text(o, "prompt");
    if (given != NULL && !kac_utf8_valid(given, strlen(given)))
        return KAC_FAIL(KAC_E_USAGE, "the prompt is not valid UTF-8");
    for (int i = 0; i < j->cli->n_words; i++)
        KAC_TRY(kac_score_list_add(&j->list, j->cli->words[i], kac_options_bool(o, "recursive")));
    for (int i = 0; i < j->list.n; i++) {
        kac_scored *item = &j->list.items[i];
        if (given == NULL)
            KAC_TRY(kac_picture_prompt(&item->prompt, item->path));
        else if ((item->prompt = kac_strdup(given)) == NULL)
            return KAC_E_MEMORY;
    }
    return KAC_OK;
}

static kac_status open_rewards(job *j) {
    const kac_options *o = j->cli->options;
    const int n = KAC_MIN(kac_options_count(o, "reward"), KAC_MAX_REWARDS + 1); /* one too many is refused below */
    char *weights = kac_cli_weights_dir(), *texts[KAC_MAX_REWARDS + 1] = {0};
    kac_status s = weights == NULL ? KAC_E_MEMORY : KAC_OK;
    for (int i = 0; i < KAC_MAX(n, 1) && s == KAC_OK; i++) {
        texts[i] = kac_image_reward_expand(n > 0 ? kac_options_text_at(o, "reward", i) : "clip", weights);
        if (texts[i] == NULL) s = KAC_E_MEMORY;
    }
    if (s == KAC_OK) s = kac_reward_set_open(&j->rewards, &j->ctx, (const char *const *)texts, KAC_MAX(n, 1), o);
    for (int i = 0; i < KAC_COUNT_OF(texts); i++) kac_free(texts[i]);
    kac_free(weights);
    return s;
}

static void show_progress(void *self, int n_done, int n) {
    job *j = self;
    if (kac_now_ms() - j->drawn_ms < 250) return;
    j->drawn_ms = kac_now_ms();
    fprintf(stderr, "\r\033[K%d of %d pictures", n_done, n);
    fflush(stderr);
}

/* By falling reward, then by name; what failed comes last. */
static int by_rank(const void *a, const void *b) {
    const kac_scored *x = a, *y = b;
    if ((x->error == NULL) != (y->error == NULL)) return x->error == NULL ? -1 : 1;
    if (x->error == NULL && x->total != y->total) return x->total < y->total ? 1 : -1;
    return strcmp(x->path, y->path);
}

static kac_status score_items(job *j) {
    const bool shown = isatty(STDERR_FILENO) != 0;
    const kac_score_hooks hooks = {.self = j, .progress = shown ? show_progress : NULL};
    j->drawn_ms = kac_now_ms();
    const kac_status s = kac_score_pictures(j->list.items, j->list.n, &j->rewards, &hooks);
    if (shown) fprintf(stderr, "\r\033[K");
    KAC_TRY(s);
    qsort(j->list.items, (size_t)j->list.n, sizeof *j->list.items, by_rank);
    while (j->n_scored < j->list.n && j->list.items[j->n_scored].error == NULL) j->n_scored++;
    const int keep = (int)kac_options_int(j->cli->options, "keep");
    j->n_listed = keep > 0 ? KAC_MIN(keep, j->n_scored) : j->n_scored;
    return KAC_OK;
}

/* ---- results ---- */

static void csv_text(kac_text *t, const char *s) {
    kac_text_add(t, "\"");
    for (; *s != '\0'; s++) kac_text_add(t, *s == '"' ? "\"\"" : "%c", *s);
    kac_text_add(t, "\"");
}

static kac_status write_csv(const job *j, const char *path) {
    const bool uncertain = kac_mix_has_uncertainty(j->rewards.mix);
    kac_text t = {0};
    kac_text_add(&t, "rank,file,reward%s", uncertain ? ",uncertainty" : "");
    for (int k = 0; k < j->rewards.n; k++) {
        kac_text_add(&t, ",");
        csv_text(&t, j->rewards.specs[k]->label);
    }
    kac_text_add(&t, ",prompt\n");
    for (int i = 0; i < j->n_listed; i++) {
        const kac_scored *item = &j->list.items[i];
        kac_text_add(&t, "%d,", i + 1);
        csv_text(&t, item->path);
        kac_text_add(&t, ",%.9g", item->total);
        if (uncertain) kac_text_add(&t, ",%.9g", item->uncertainty);
        for (int k = 0; k < j->rewards.n; k++) kac_text_add(&t, ",%.9g", item->values[k]);
        kac_text_add(&t, ",");
        csv_text(&t, item->prompt == NULL ? "" : item->prompt);
        kac_text_add(&t, "\n");
    }
    const kac_status s = t.failed ? KAC_E_MEMORY : kac_file_write(path, t.s, t.n);
    kac_text_free(&t);
    return s;
}

static cJSON *picture_row(const job *j, int i) {
    const kac_scored *item = &j->list.items[i];
    cJSON *row = cJSON_CreateObject();
    if (j->cli->json) cJSON_AddNumberToObject(row, "rank", i + 1); /* people see the order */
    cJSON_AddStringToObject(row, "file", item->path);
    cJSON_AddNumberToObject(row, "reward", item->total);
    if (kac_mix_has_uncertainty(j->rewards.mix)) cJSON_AddNumberToObject(row, "uncertainty", item->uncertainty);
    if (j->cli->json) {
        cJSON *values = cJSON_AddObjectToObject(row, "rewards");
        for (int k = 0; k < j->rewards.n; k++)
            cJSON_AddNumberToObject(values, j->rewards.specs[k]->label, item->values[k]);
    }
    if (item->prompt != NULL) cJSON_AddStringToObject(row, "prompt", item->prompt);
    return row;
}

static kac_status print(job *j) {
    cJSON *d = cJSON_CreateObject(), *rows = cJSON_AddArrayToObject(d, "images");
    for (int i = 0; i < j->n_listed; i++) cJSON_AddItemToArray(rows, picture_row(j, i));
    if (j->cli->json) {
        cJSON_AddItemToObject(d, "rewards", kac_job_reward_facts(j->rewards.specs, j->rewards.n));
        cJSON_AddStringToObject(d, "combine", kac_options_text(j->cli->options, "combine"));
        cJSON *failed = cJSON_AddArrayToObject(d, "failed");
        for (int i = j->n_scored; i < j->list.n; i++) {
            cJSON *row = cJSON_CreateObject();
            cJSON_AddStringToObject(row, "file", j->list.items[i].path);
            cJSON_AddStringToObject(row, "error", j->list.items[i].error);
            cJSON_AddItemToArray(failed, row);
        }
    }
    j->cli->answered = true;
    return kac_cli_show(j->cli, d);
}

/* Says of each picture why it has no score; the others have been listed. */
static kac_status complain(const job *j) {
    const int n_failed = j->list.n - j->n_scored;
    if (n_failed == 0) return KAC_OK;
    for (int i = j->n_scored; i < j->list.n; i++) kac_cli_complain("score", j->list.items[i].error);
    return KAC_FAIL(KAC_E_FORMAT, "%d of %d pictures could not be scored", n_failed, j->list.n);
}

static kac_status score_all(job *j) {
    const kac_options *o = j->cli->options;
    const struct kac_ops *ops;
    KAC_TRY(find_items(j));
    KAC_TRY(kac_backend_find(&ops, kac_options_text(o, "backend")));
    const kac_dtype dtype = strcmp(kac_options_text(o, "dtype"), "bf16") == 0 ? KAC_BF16 : KAC_F32;
    KAC_TRY(kac_ctx_open(&j->ctx, ops, dtype, (int)kac_options_int(o, "threads"), NULL));
    KAC_TRY(open_rewards(j));
    KAC_TRY(score_items(j));
    if (j->n_scored == 0)
        return j->list.n == 1 ? KAC_FAIL(KAC_E_FORMAT, "%s", j->list.items[0].error)
                              : KAC_FAIL(KAC_E_FORMAT, "none of the %d pictures could be scored; the first: %s",
                                         j->list.n, j->list.items[0].error);
    if (kac_options_text(o, "csv") != NULL) KAC_TRY(write_csv(j, kac_options_text(o, "csv")));
    if (kac_options_text(o, "copy-to") != NULL)
        KAC_TRY(kac_score_copy(j->list.items, j->n_listed, kac_options_text(o, "copy-to")));
    KAC_TRY(print(j));
    return complain(j);
}

static kac_status run(kac_cli *cli) {
    job j = {.cli = cli};
    signal(SIGPIPE, SIG_IGN); /* a reader that goes away is a failed write */
    const kac_status s = score_all(&j);
    kac_reward_set_close(&j.rewards);
    if (j.ctx.ops != NULL) kac_ctx_close(&j.ctx);
    kac_score_list_free(&j.list);
    return s;
}

const kac_cli_command kac_cli_score = {
    .name = "score",
    .summary = "Scores and ranks pictures that exist already, or those of folders.",
    .words_usage = "FILES...",
    .min_words = 1,
    .max_words = -1,
    .options = options,
    .notes = KAC_REWARD_NOTES
    "\nexamples:\n"
    "  kac score runs/stars --keep 3 --copy-to best\n"
    "  kac score *.png --reward clip=models/clip-vit-large-patch14 --reward jpeg:-0.01 --prompt \"a cat\" "
    "--csv cats.csv\n"
    "  kac score pictures -r --reward clip=A --reward clip=B --combine mean-std=1\n",
    .run = run,
};
