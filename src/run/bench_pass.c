#include "run/bench_pass.h"
#include "io/image.h"
#include "run/generate_job.h"
#include "run/run_record.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

/* What is added up over a pass. */
typedef struct tally {
    kac_latent_counts latent;
    int64_t reward, reward_grad;
    double reward_ms, reward_grad_ms, flops;
} tally;

typedef struct pass_run {
    const kac_bench_pass *pass;
    kac_latent_run *run;
    kac_events events;
    kac_particles particles;
    double steer_ms, text_ms;
    tally spent;
    kac_search_event *searches; /* [n] the last of each group; n_groups 0: none */
    cJSON **families;           /* [n] lists of events */
    char **trees;               /* [n] files */
    double *values, *weights;   /* [n_slots] rewards of the results; normalised weights */
    double *judged;             /* [n_judges, n_slots] */
    const uint8_t **rgb;        /* [n_slots] */
    int *slots;
    int n_slots, n_each;
} pass_run;

static const kac_bench_plan *plan_of(const pass_run *r) {
    return r->pass->models->plan;
}

static const kac_bench_way *way_of(const pass_run *r) {
    return &plan_of(r)->ways[r->pass->places[0].way];
}

/* ---- files ---- */

/* "pictures/LABEL/b25-s0-p0003.png"; the folder is made. NULL: a message is stored. */
static char *file_name(const pass_run *r, const char *kind, int group, const char *end) {
    const kac_bench_plan *p = plan_of(r);
    const kac_bench_place at = r->pass->places[group];
    char *name = kac_format("%s/%s/b%g-s%lld-p%04d%s", kind, way_of(r)->label, p->budgets[at.budget],
                            (long long)p->seeds[at.seed], at.prompt, end);
    char *folder = kac_format("%s/%s/%s", r->pass->folder, kind, way_of(r)->label);
    if (name == NULL || folder == NULL || kac_dir_make(folder) != KAC_OK) {
        kac_free(name), kac_free(folder);
        return NULL;
    }
    kac_free(folder);
    return name;
}

/* ---- events ---- */

static void tell_share(const pass_run *r, double share) {
    if (r->pass->share != NULL) r->pass->share(r->pass->self, KAC_MIN(share, 1));
}

static kac_status on_step(kac_events *e, const kac_step_event *event) {
    pass_run *r = e->self;
    if (event->group == event->n_groups - 1) tell_share(r, (double)event->i_step / event->n_steps);
    if (!r->pass->trees) return KAC_OK;
    cJSON *line = kac_run_step_json(event);
    if (line == NULL) return KAC_FAIL(KAC_E_MEMORY, "out of memory while recording a step");
    cJSON_AddItemToArray(r->families[event->group], line);
    return KAC_OK;
}

static kac_status on_search(kac_events *e, const kac_search_event *event) {
    pass_run *r = e->self;
    kac_search_event *kept = &r->searches[event->group];
    *kept = *event;
    kept->rewards = NULL;
    tell_share(r, KAC_MAX(event->nfe_budget > 0 ? (double)event->nfe / (double)event->nfe_budget : 0,
                          event->seconds_budget > 0 ? event->seconds / event->seconds_budget : 0));
    return KAC_OK;
}

static kac_status on_tree(kac_events *e, const kac_tree_event *event) {
    pass_run *r = e->self;
    if (!r->pass->trees) return KAC_OK;
    kac_free(r->trees[event->group]);
    r->trees[event->group] = file_name(r, "trees", event->group, ".json");
    char *path = r->trees[event->group] == NULL ? NULL : kac_path_join(r->pass->folder, r->trees[event->group]);
    const kac_status s =
        path == NULL ? KAC_E_MEMORY : kac_tree_write(path, event, kac_latent_process(r->run->latent)->n_steps);
    kac_free(path);
    return s;
}

static bool on_cancelled(kac_events *e) {
    const pass_run *r = e->self;
    return r->pass->cancelled != NULL && r->pass->cancelled(r->pass->self);
}

/* ---- steering ---- */

static tally tally_of(const kac_latent_run *r) {
    return (tally){.latent = *kac_latent_counts_of(r->latent),
                   .reward = kac_latent_reward_count(r->reward),
                   .reward_grad = kac_latent_reward_grad_count(r->reward),
                   .reward_ms = kac_latent_reward_ms(r->reward),
                   .reward_grad_ms = kac_latent_reward_grad_ms(r->reward),
                   .flops = r->ctx.counts.flops};
}

static kac_status steer(pass_run *r) {
    const kac_bench_plan *p = plan_of(r);
    const kac_bench_way *w = way_of(r);
    const kac_bench_place at = r->pass->places[0];
    r->events = (kac_events){
        .self = r, .on_step = on_step, .on_search = on_search, .on_tree = on_tree, .cancelled = on_cancelled};
    if (w->method->anytime && p->unit == KAC_UNIT_NFE) r->events.nfe = (int64_t)p->budgets[at.budget];
    if (w->method->anytime && p->unit == KAC_UNIT_SECONDS) r->events.seconds = p->budgets[at.budget] * r->pass->n;
    const double start_ms = kac_now_ms(), start_flops = r->run->ctx.counts.flops;
    const kac_status s =
        w->method->run(&r->particles, kac_latent_process(r->run->latent), kac_latent_reward_of(r->run->reward),
                       &r->events, w->options, (uint64_t)p->seeds[at.seed]);
    r->steer_ms = kac_now_ms() - start_ms;
    r->spent = tally_of(r->run);
    r->spent.flops -= start_flops;
    if (s == KAC_OK && on_cancelled(&r->events))
        return KAC_FAIL(KAC_E_CANCELLED, "stopped"); /* it may have ended early */
    return s;
}

/* ---- what came out ---- */

/* Final pictures, their rewards (the method may never have asked), and what the judges say of them. */
static kac_status judge(pass_run *r) {
    kac_latent_run *run = r->run;
    kac_process *process = kac_latent_process(run->latent);
    kac_reward *reward = kac_latent_reward_of(run->reward);
    for (int i = 0; i < r->n_slots; i++) r->slots[i] = i;
    KAC_TRY(reward->score(reward, process, r->slots, r->n_slots, KAC_STAGE_FINAL, r->values));
    KAC_TRY(kac_latent_pictures(run->latent, r->slots, r->n_slots, KAC_STAGE_FINAL, r->rgb));
    kac_picture *pictures = kac_alloc((size_t)r->n_slots * sizeof *pictures);
    if (pictures == NULL) return KAC_E_MEMORY;
    for (int i = 0; i < r->n_slots; i++)
        pictures[i] = (kac_picture){
            .rgb = r->rgb[i], .width = (int)run->o.width, .height = (int)run->o.height, .prompt = i / r->n_each};
    kac_status s = KAC_OK;
    for (int k = 0; k < run->judges.n && s == KAC_OK; k++)
        s = kac_image_reward_score(run->judges.parts[k], pictures, r->n_slots, r->judged + k * r->n_slots);
    kac_free(pictures);
    return s;
}

/* As `kac generate` ranks: by reward, then by weight, then by number. */
static int best_of(const pass_run *r, int group) {
    int best = group * r->n_each;
    for (int i = best + 1; i < (group + 1) * r->n_each; i++)
        if (r->values[i] > r->values[best] || (r->values[i] == r->values[best] && r->weights[i] > r->weights[best]))
            best = i;
    return best;
}

static double weighted_mean(const pass_run *r, int group, const double *values) {
    double sum = 0;
    for (int i = group * r->n_each; i < (group + 1) * r->n_each; i++) sum += r->weights[i] * values[i];
    return sum;
}

static double ess_of(const pass_run *r, int group) {
    double sum = 0;
    for (int i = group * r->n_each; i < (group + 1) * r->n_each; i++) sum += r->weights[i] * r->weights[i];
    return 1 / sum;
}

static int count_eves(const pass_run *r, int group) {
    const int *eves = r->particles.eves + group * r->n_each;
    int n = 0;
    for (int i = 0; i < r->n_each; i++) {
        bool seen = false;
        for (int k = 0; k < i && !seen; k++) seen = eves[k] == eves[i];
        n += !seen;
    }
    return n;
}

/* Mean over pairs of the root mean square distance of their pixels, 0 … 1; of at most so many results, spread evenly. NAN: there is one. */
static double diversity_of(const pass_run *r, int group) {
    enum { MOST = 64 };
    const int n = KAC_MIN(r->n_each, (int)MOST);
    const size_t n_bytes = (size_t)(r->run->o.width * r->run->o.height * 3);
    double sum = 0;
    for (int i = 0; i < n; i++)
        for (int k = 0; k < i; k++) {
            const uint8_t *a = r->rgb[group * r->n_each + i * r->n_each / n],
                          *b = r->rgb[group * r->n_each + k * r->n_each / n];
            double squares = 0;
            for (size_t at = 0; at < n_bytes;) {
                const size_t end = KAC_MIN(at + 4096, n_bytes);
                uint32_t part = 0;
                for (; at < end; at++) part += (uint32_t)((a[at] - b[at]) * (a[at] - b[at]));
                squares += part;
            }
            sum += sqrt(squares / (double)n_bytes) / 255;
        }
    return n < 2 ? NAN : sum / (n * (n - 1) / 2.0);
}

/* ---- lines ---- */

static void add_judges(cJSON *line, const pass_run *r, int group, int best) {
    cJSON *judges = cJSON_AddObjectToObject(line, "judges"), *means = cJSON_AddObjectToObject(line, "mean_judges");
    for (int k = 0; k < r->run->judges.n; k++) {
        const double *values = r->judged + k * r->n_slots;
        const char *label = r->run->judges.specs[k]->label;
        cJSON_AddItemToObject(judges, label, kac_json_number(values[best]));
        cJSON_AddItemToObject(means, label, kac_json_number(weighted_mean(r, group, values)));
    }
}

/* Of each cell its share: groups go through the same steps. */
static void add_costs(cJSON *line, const pass_run *r, int group) {
    const double share = 1.0 / r->pass->n;
    const kac_latent_counts *k = &r->spent.latent;
    const kac_search_event *search = &r->searches[group];
    cJSON_AddNumberToObject(line, "nfe", search->n_groups > 0 ? (double)search->nfe : (double)k->nfe * share);
    cJSON *counts = cJSON_AddObjectToObject(line, "counts");
    cJSON_AddNumberToObject(counts, "denoiser", (double)k->denoiser * share);
    cJSON_AddNumberToObject(counts, "decoder", (double)k->decoder * share);
    cJSON_AddNumberToObject(counts, "reward", (double)r->spent.reward * share);
    cJSON_AddNumberToObject(counts, "denoiser_grad", (double)k->denoiser_grad * share);
    cJSON_AddNumberToObject(counts, "reward_grad", (double)r->spent.reward_grad * share);
    cJSON_AddNumberToObject(line, "flops", r->spent.flops * share);
    const double networks_ms =
        k->denoiser_ms + k->decoder_ms + k->gradient_ms + r->spent.reward_ms + r->spent.reward_grad_ms;
    cJSON_AddNumberToObject(line, "seconds", (r->steer_ms + r->text_ms) / 1000 * share);
    cJSON_AddNumberToObject(line, "host_seconds", KAC_MAX(0, r->steer_ms - networks_ms) / 1000 * share);
}

static void add_statistics(cJSON *line, const pass_run *r, int group) {
    const kac_search_event *search = &r->searches[group];
    const bool searched = search->n_groups > 0;
    cJSON_AddItemToObject(line, "log_z", kac_json_number(r->particles.log_z[group]));
    cJSON_AddItemToObject(line, "ess", kac_json_number(searched ? search->ess : ess_of(r, group)));
    if (!searched && r->particles.eves != NULL)
        cJSON_AddNumberToObject(line, "n_eves", count_eves(r, group));
    cJSON_AddItemToObject(line, "diversity", kac_json_number(diversity_of(r, group)));
    if (searched) cJSON_AddNumberToObject(line, "n_samples", (double)search->n_samples);
    if (searched && search->n_nodes > 0) cJSON_AddNumberToObject(line, "n_nodes", (double)search->n_nodes);
}

static kac_status write_picture(const pass_run *r, const char *name, int slot) {
    char *path = kac_path_join(r->pass->folder, name);
    const kac_status s = path == NULL
                             ? KAC_E_MEMORY
                             : kac_png_save(path, r->rgb[slot], (int)r->run->o.width, (int)r->run->o.height, NULL, 0);
    kac_free(path);
    return s;
}

static kac_status write_pictures(cJSON *line, const pass_run *r, int group, int best) {
    if (r->pass->keep_best || r->pass->keep_all) {
        char *name = file_name(r, "pictures", group, ".png");
        const kac_status s = name == NULL ? KAC_E_IO : write_picture(r, name, best);
        if (s == KAC_OK) cJSON_AddStringToObject(line, "picture", name);
        kac_free(name);
        KAC_TRY(s);
    }
    cJSON *list = r->pass->keep_all ? cJSON_AddArrayToObject(line, "pictures") : NULL;
    for (int i = 0; list != NULL && i < r->n_each; i++) {
        char end[32];
        snprintf(end, sizeof end, "-%03d.png", i);
        char *name = file_name(r, "pictures", group, end);
        const kac_status s = name == NULL ? KAC_E_IO : write_picture(r, name, group * r->n_each + i);
        if (s == KAC_OK) cJSON_AddItemToArray(list, cJSON_CreateString(name));
        kac_free(name);
        KAC_TRY(s);
    }
    return KAC_OK;
}

static kac_status write_family(cJSON *line, const pass_run *r, int group) {
    if (!r->pass->trees || cJSON_GetArraySize(r->families[group]) == 0) return KAC_OK;
    char *name = file_name(r, "families", group, ".json"),
         *path = name == NULL ? NULL : kac_path_join(r->pass->folder, name);
    cJSON *document = cJSON_CreateObject();
    cJSON_AddItemReferenceToObject(document, "events", r->families[group]);
    char *text = cJSON_PrintUnformatted(document);
    cJSON_Delete(document);
    const kac_status s = path == NULL || text == NULL ? KAC_E_MEMORY : kac_file_write(path, text, strlen(text));
    if (s == KAC_OK) cJSON_AddStringToObject(line, "family", name);
    cJSON_free(text), kac_free(path), kac_free(name);
    return s;
}

static cJSON *begin_line(const kac_bench_pass *pass, int group) {
    const kac_bench_plan *p = pass->models->plan;
    const kac_bench_place at = pass->places[group];
    cJSON *line = cJSON_CreateObject();
    cJSON_AddStringToObject(line, "method", p->ways[at.way].label);
    cJSON_AddNumberToObject(line, "budget", p->budgets[at.budget]);
    cJSON_AddNumberToObject(line, "prompt", at.prompt);
    cJSON_AddNumberToObject(line, "seed", (double)p->seeds[at.seed]);
    return line;
}

static kac_status end_line(kac_text *lines, cJSON *line, kac_status s) {
    char *text = s == KAC_OK ? cJSON_PrintUnformatted(line) : NULL;
    cJSON_Delete(line);
    if (text != NULL) kac_text_add(lines, "%s\n", text);
    cJSON_free(text);
    if (s == KAC_OK && (text == NULL || lines->failed))
        return KAC_FAIL(KAC_E_MEMORY, "out of memory while writing results");
    return s;
}

static kac_status add_line(const pass_run *r, int group, kac_text *lines) {
    const int best = best_of(r, group);
    cJSON *line = begin_line(r->pass, group);
    cJSON_AddItemToObject(line, "reward", kac_json_number(r->values[best]));
    cJSON_AddItemToObject(line, "mean_reward", kac_json_number(weighted_mean(r, group, r->values)));
    add_judges(line, r, group, best);
    cJSON_AddNumberToObject(line, "n", r->n_each);
    add_costs(line, r, group);
    add_statistics(line, r, group);
    kac_status s = write_pictures(line, r, group, best);
    if (s == KAC_OK) s = write_family(line, r, group);
    if (s == KAC_OK && r->trees[group] != NULL) cJSON_AddStringToObject(line, "tree", r->trees[group]);
    return end_line(lines, line, s);
}

/* ---- a pass ---- */

static kac_status take_memory(pass_run *r) {
    r->n_each = r->run->o.n_per_group, r->n_slots = r->n_each * r->pass->n;
    const size_t n = (size_t)r->n_slots, n_groups = (size_t)r->pass->n;
    r->searches = kac_alloc(n_groups * sizeof *r->searches);
    r->families = kac_alloc(n_groups * sizeof *r->families), r->trees = kac_alloc(n_groups * sizeof *r->trees);
    r->values = kac_alloc(n * sizeof *r->values), r->weights = kac_alloc(n * sizeof *r->weights);
    r->judged = kac_alloc((n * (size_t)r->run->judges.n + 1) * sizeof *r->judged);
    r->rgb = kac_alloc(n * sizeof *r->rgb), r->slots = kac_alloc(n * sizeof *r->slots);
    if (r->searches == NULL || r->families == NULL || r->trees == NULL || r->values == NULL || r->weights == NULL ||
        r->judged == NULL || r->rgb == NULL || r->slots == NULL)
        return KAC_E_MEMORY;
    for (int g = 0; g < r->pass->n; g++) {
        r->families[g] = cJSON_CreateArray();
        if (r->families[g] == NULL) return KAC_FAIL(KAC_E_MEMORY, "out of memory for a pass");
    }
    return KAC_OK;
}

static void free_memory(pass_run *r) {
    for (int g = 0; g < r->pass->n; g++) {
        if (r->families != NULL) cJSON_Delete(r->families[g]);
        if (r->trees != NULL) kac_free(r->trees[g]);
    }
    kac_free(r->searches), kac_free(r->families), kac_free(r->trees), kac_free(r->values), kac_free(r->weights);
    kac_free(r->judged), kac_free(r->rgb), kac_free(r->slots);
    kac_particles_free(&r->particles);
}

static kac_status run_opened(pass_run *r, kac_text *lines) {
    KAC_TRY(take_memory(r));
    r->text_ms = kac_latent_counts_of(r->run->latent)->text_ms;
    KAC_TRY(steer(r));
    kac_job_weights(r->weights, &r->particles);
    KAC_TRY(judge(r));
    for (int g = 0; g < r->pass->n; g++) KAC_TRY(add_line(r, g, lines));
    return KAC_OK;
}

static kac_status run_block(const kac_bench_pass *pass, kac_text *lines) {
    int prompts[1000];
    const kac_bench_place at = pass->places[0];
    pass_run r = {.pass = pass};
    KAC_ASSERT(pass->n <= KAC_COUNT_OF(prompts));
    for (int i = 0; i < pass->n; i++) prompts[i] = pass->places[i].prompt;
    KAC_TRY(kac_bench_models_begin(&r.run, pass->models, at.way, at.budget, pass->models->plan->seeds[at.seed], prompts,
                                   pass->n));
    const kac_status s = run_opened(&r, lines);
    free_memory(&r);
    kac_latent_run_end(r.run);
    return s;
}

/* What is about these cells, not about the whole bench. */
static bool is_cells_own(kac_status s) {
    return s == KAC_E_NONFINITE || s == KAC_E_USAGE || s == KAC_E_UNSUPPORTED;
}

kac_status kac_bench_pass_run(const kac_bench_pass *pass, kac_text *lines, int *n_failed) {
    const kac_status s = run_block(pass, lines);
    if (s == KAC_OK || !is_cells_own(s)) return s;
    if (pass->n > 1 && s == KAC_E_NONFINITE) { /* each alone, so that the one at fault is known */
        kac_text_free(lines);
        for (int i = 0; i < pass->n; i++) {
            kac_bench_pass one = *pass;
            one.places = pass->places + i, one.n = 1;
            KAC_TRY(kac_bench_pass_run(&one, lines, n_failed));
        }
        return KAC_OK;
    }
    char error[1024];
    snprintf(error, sizeof error, "%s", kac_error());
    for (int i = 0; i < pass->n; i++) {
        cJSON *line = begin_line(pass, i);
        cJSON_AddStringToObject(line, "error", error);
        KAC_TRY(end_line(lines, line, KAC_OK));
    }
    *n_failed += pass->n;
    return KAC_OK;
}
