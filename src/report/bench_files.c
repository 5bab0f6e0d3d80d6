#include "bench_files.h"
#include "plot.h"
#include <math.h>
#include <string.h>

/* ---- tables ---- */

static const char *const columns[KAC_BENCH_JUDGES] = {
    "reward", "mean_reward", "n",         "nfe",      "flops",   "seconds", "host_seconds",  "log_z",
    "ess",    "n_eves",      "diversity", "denoiser", "decoder", "rewards", "denoiser_grad", "reward_grad"};

/* A field in quotes when it needs them (RFC 4180). */
static void add_text(kac_text *t, const char *s) {
    if (s == NULL) return;
    if (strpbrk(s, ",\"\r\n") == NULL) {
        kac_text_add(t, "%s", s);
        return;
    }
    kac_text_add(t, "\"");
    for (; *s != '\0'; s++) kac_text_add(t, *s == '"' ? "\"\"" : "%c", *s);
    kac_text_add(t, "\"");
}

static void add_number(kac_text *t, double v) {
    kac_text_add(t, isfinite(v) ? ",%.9g" : ",", v);
}

static void add_column(kac_text *t, const kac_bench_data *d, int quantity, const char *end) {
    kac_text name = {0};
    const int judge = quantity - KAC_BENCH_JUDGES;
    if (judge < 0)
        kac_text_add(&name, "%s%s", columns[quantity], end);
    else
        kac_text_add(&name, "%s%s%s", judge % 2 == 1 ? "mean_" : "", d->judges[judge / 2], end);
    kac_text_add(t, ",");
    add_text(t, name.s);
    kac_text_free(&name);
}

void kac_bench_results_csv(kac_text *t, const kac_bench_data *d) {
    kac_text_add(t, "method,budget,prompt,seed,id,category,text");
    for (int q = 0; q < d->n_quantities; q++) add_column(t, d, q, "");
    kac_text_add(t, ",picture,tree,family,error\n");
    for (int i = 0; i < d->n_cells; i++) {
        const kac_bench_cell *c = &d->cells[i];
        const kac_bench_prompt *p = &d->prompts[c->prompt];
        add_text(t, d->methods[c->method].label);
        kac_text_add(t, ",%.17g,%d,%.17g,", d->budgets[c->budget], c->prompt, d->seeds[c->seed]);
        const char *const before[] = {p->id, p->category < 0 ? "" : d->categories[p->category], p->text};
        for (int k = 0; k < KAC_COUNT_OF(before); k++) {
            kac_text_add(t, k == 0 ? "" : ",");
            add_text(t, before[k]);
        }
        for (int q = 0; q < d->n_quantities; q++) add_number(t, c->done ? kac_bench_value(d, c, q) : NAN);
        const char *const after[] = {c->picture, c->tree, c->family, c->error};
        for (int k = 0; k < KAC_COUNT_OF(after); k++) {
            kac_text_add(t, ",");
            add_text(t, after[k]);
        }
        kac_text_add(t, "\n");
    }
}

static bool is_quality(int quantity) {
    return quantity <= KAC_BENCH_MEAN_REWARD || quantity >= KAC_BENCH_JUDGES;
}

void kac_bench_curves_csv(kac_text *t, const kac_bench_page *p) {
    const kac_bench_data *d = p->d;
    kac_text_add(t, "method,budget,cells");
    for (int q = 0; q < d->n_quantities; q++) {
        add_column(t, d, q, "");
        if (is_quality(q)) add_column(t, d, q, "_low"), add_column(t, d, q, "_high");
    }
    kac_text_add(t, "\n");
    for (int m = 0; m < d->n_methods; m++)
        for (int b = 0; b < d->n_budgets; b++) {
            add_text(t, d->methods[m].label);
            kac_text_add(t, ",%.17g,%d", d->budgets[b], kac_bench_curve_at(&p->curves[KAC_BENCH_REWARD], m, b)->n);
            for (int q = 0; q < d->n_quantities; q++) {
                const kac_bench_mean *at = kac_bench_curve_at(&p->curves[q], m, b);
                add_number(t, at->mean);
                if (is_quality(q)) add_number(t, at->lo), add_number(t, at->hi);
            }
            kac_text_add(t, "\n");
        }
}

static kac_status write_table(const kac_bench_page *p, const char *name, kac_text *t) {
    char *path = kac_path_join(p->d->folder, name);
    kac_status s = path == NULL || t->failed ? KAC_E_MEMORY : kac_file_write(path, t->s, t->n);
    kac_free(path), kac_text_free(t);
    return s;
}

/* ---- plots ---- */

typedef struct plot {
    kac_bench_page *p;
    const char *path;
} plot;

static kac_status write_plot(void *self, const kac_chart *c) {
    plot *one = self;
    bool drawn;
    KAC_TRY(kac_plot_write(one->path, c, &drawn));
    one->p->info->n_plots += drawn;
    return KAC_OK;
}

/* "reward", "mean_reward", "judge1_attributes": what a file may be called anywhere. */
static char *plain_name(const kac_bench_data *d, int quantity) {
    if (quantity < KAC_BENCH_JUDGES) return kac_strdup(columns[quantity]);
    const int judge = (quantity - KAC_BENCH_JUDGES) / 2;
    char *name = kac_format("%sjudge%d_%.*s", (quantity - KAC_BENCH_JUDGES) % 2 == 1 ? "mean_" : "", judge + 1,
                            (int)KAC_MIN(strcspn(d->judges[judge], "="), 40), d->judges[judge]);
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-";
    for (char *c = name; c != NULL && *c != '\0'; c++)
        if (strchr(plain, *c) == NULL) *c = '_';
    return name;
}

static kac_status write_plots(kac_bench_page *p, const char *folder) {
    static const int costs[] = {KAC_BENCH_NFE, KAC_BENCH_SECONDS, KAC_BENCH_FLOPS};
    int qualities[KAC_BENCH_MAX_QUANTITIES];
    const int n = kac_bench_qualities(qualities, p, true);
    kac_status s = KAC_OK;
    for (int i = 0; s == KAC_OK && i < n; i++) {
        char *name = plain_name(p->d, qualities[i]);
        for (int k = 0; s == KAC_OK && k < KAC_COUNT_OF(costs); k++) {
            char *path = name == NULL ? NULL : kac_format("%s/%s_%s", folder, name, columns[costs[k]]);
            s = path == NULL ? KAC_E_MEMORY : KAC_OK;
            if (s == KAC_OK) s = kac_bench_chart(p, qualities[i], costs[k], write_plot, &(plot){p, path});
            kac_free(path);
        }
        kac_free(name);
    }
    return s;
}

kac_status kac_bench_files_write(kac_bench_page *p) {
    kac_text results = {0}, curves = {0};
    kac_bench_results_csv(&results, p->d);
    KAC_TRY(write_table(p, "results.csv", &results));
    kac_bench_curves_csv(&curves, p);
    KAC_TRY(write_table(p, "curves.csv", &curves));
    char *folder = kac_path_join(p->d->folder, "plots");
    kac_status s = folder == NULL ? KAC_E_MEMORY : kac_dir_make(folder);
    if (s == KAC_OK) s = write_plots(p, folder);
    kac_free(folder);
    return s;
}
