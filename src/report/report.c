#include "report.h"
#include "html.h"
#include "page.h"
#include <math.h>
#include <string.h>

/* A page larger than this helps nobody. */
enum { FINALS_BYTES = 96 << 20, PREVIEWS_BYTES = 32 << 20, OPEN_GROUPS = 8 };

const char *kac_page_prompt(const kac_run_data *d, int group) {
    const cJSON *groups = kac_run_at(d->run.root, "groups");
    return kac_run_text(cJSON_IsArray(groups) ? cJSON_GetArrayItem(groups, group) : NULL, "prompt", "");
}

static uint32_t be32(const uint8_t *p) {
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

bool kac_page_image(kac_page *p, const char *file, const char *alt, int64_t *left_bytes) {
    char *path = kac_path_join(p->d->folder, file);
    kac_map map = {0};
    const bool here = path != NULL && kac_file_exists(path) && kac_map_open(&map, path) == KAC_OK;
    kac_free(path);
    if (!here) return false;
    const bool usable = map.n > 33 && memcmp(map.data, "\x89PNG\r\n\x1a\n", 8) == 0 && (int64_t)map.n <= *left_bytes;
    if (usable) {
        const uint32_t w = be32(map.data + 16), h = be32(map.data + 20);
        *left_bytes -= (int64_t)map.n;
        kac_text_add(p->t, "<img%s alt=\"", w <= 128 ? " class=\"small\"" : "");
        kac_html_escape(p->t, alt);
        kac_text_add(p->t, "\" width=\"%u\" height=\"%u\" src=\"data:image/png;base64,", w, h);
        kac_html_base64(p->t, map.data, map.n);
        kac_text_add(p->t, "\">");
    }
    kac_map_close(&map);
    return usable;
}

static void add_fact(kac_text *t, double v, const char *unit) {
    if (!isfinite(v)) return;
    kac_text_add(t, "<li><b>");
    kac_html_number(t, v);
    kac_text_add(t, "</b> %s</li>", unit);
}

static bool is_tuning(const kac_run_data *d) {
    return kac_run_text(d->run.root, "tune", NULL) != NULL;
}

static void add_state(kac_page *p) {
    const cJSON *run = p->d->run.root;
    const char *command = is_tuning(p->d) ? "tune" : "generate", *same = is_tuning(p->d) ? "LoRA" : "pictures";
    const char *state = kac_run_text(run, "state", "");
    kac_text *t = p->t;
    if (strcmp(state, "finished") == 0) return;
    kac_text_add(t, "<p class=\"state\">");
    if (strcmp(state, "failed") == 0) {
        kac_text_add(t, "This run failed: ");
        kac_html_escape(t, kac_run_text(run, "error", "no reason was written down"));
    } else if (strcmp(state, "interrupted") == 0) {
        kac_text_add(t, "This run was stopped. <code>kac %s --resume -o RUN</code> goes on to the same %s.", command,
                     same);
    } else if (run == NULL) {
        kac_text_add(t, "run.json is missing or incomplete: what the events tell is shown.");
    } else {
        kac_text_add(t,
                     "This run was not finished when the page was made: it was still going on, or was killed. "
                     "<code>kac %s --resume -o RUN</code> goes on to the same %s, <code>kac report RUN</code> makes "
                     "the page again.",
                     command, same);
    }
    kac_text_add(t, "</p>\n");
}

/* "alignprop: clip=weights/shapes-clip"; caller frees. */
static char *tuning_title(const cJSON *run) {
    kac_text t = {0};
    const cJSON *v;
    kac_text_add(&t, "%s", kac_run_text(run, "tune", ""));
    cJSON_ArrayForEach(v, kac_run_at(run, "rewards"))
        kac_text_add(&t, "%s%s", v->prev->next == NULL ? ": " : ", ", kac_path_base(kac_run_text(v, "name", "")));
    char *copy = t.s == NULL ? NULL : kac_strdup(t.s);
    kac_text_free(&t);
    return copy;
}

static void add_tuning_facts(kac_page *p) {
    const cJSON *run = p->d->run.root;
    kac_text_add(p->t, "<li>tuned by <b>");
    kac_html_escape(p->t, kac_run_text(run, "tune", ""));
    kac_text_add(p->t, "</b></li>");
    add_fact(p->t, kac_run_number(run, "n_rounds"), "rounds");
    add_fact(p->t, kac_run_number(run, "n_prompts"), "prompts");
    add_fact(p->t, kac_run_number(run, "n_layers"), "layers changed");
    add_fact(p->t, kac_run_number(run, "n_values"), "numbers tuned");
}

static void add_head(kac_page *p) {
    const cJSON *run = p->d->run.root;
    kac_text *t = p->t;
    char *many = p->d->n_groups > 1 ? kac_format("%d prompts", p->d->n_groups) : NULL;
    char *tuned = is_tuning(p->d) ? tuning_title(run) : NULL;
    const char *title = tuned != NULL ? tuned : many != NULL ? many : kac_page_prompt(p->d, 0);
    if (title[0] == '\0') title = "A run without a prompt";
    kac_html_open(t, title, "data:", "");
    kac_text_add(t, "<ul class=\"facts\">");
    if (is_tuning(p->d)) add_tuning_facts(p);
    const char *steer = kac_run_text(run, "steer", NULL), *sampler = kac_run_text(run, "sampler", NULL);
    if (steer != NULL) {
        kac_text_add(t, "<li>steered by <b>");
        kac_html_escape(t, steer);
        kac_text_add(t, "</b></li>");
    }
    if (sampler != NULL) {
        kac_text_add(t, "<li>solver <b>");
        kac_html_escape(t, sampler);
        kac_text_add(t, "</b></li>");
    }
    add_fact(t, kac_run_number(run, "n_particles"), p->d->n_groups > 1 ? "particles each" : "particles");
    add_fact(t, kac_run_number(run, "n_steps"), "steps");
    add_fact(t, kac_run_number(kac_run_at(run, "seconds"), "total"), "s");
    const double seed = kac_run_number(run, "seed");
    if (isfinite(seed)) kac_text_add(t, "<li>seed <b>%.0f</b></li>", seed);
    const char *started = kac_run_text(run, "started", NULL);
    if (started != NULL) {
        kac_text_add(t, "<li>");
        kac_html_escape(t, started);
        kac_text_add(t, "</li>");
    }
    kac_text_add(t, "</ul>\n");
    add_state(p);
    kac_text_add(t, "</header>\n<main>\n");
    kac_free(many), kac_free(tuned);
}

static kac_status add_groups(kac_page *p) {
    const int n = p->d->n_groups;
    for (int g = 0; g < n; g++) {
        kac_text_add(p->t, "<section class=\"group\">");
        if (n > 1) {
            const char *prompt = kac_page_prompt(p->d, g);
            kac_text_add(p->t, "<details%s><summary><h2>", g < OPEN_GROUPS ? " open" : "");
            kac_html_escape(p->t, prompt[0] == '\0' ? "(empty prompt)" : prompt);
            kac_text_add(p->t, "</h2></summary>\n");
        }
        KAC_TRY(kac_page_group(p, g));
        kac_text_add(p->t, n > 1 ? "</details></section>\n" : "</section>\n");
    }
    return KAC_OK;
}

kac_status kac_report_render(kac_text *text, const char *folder, kac_report_info *info) {
    kac_report_info own;
    if (info == NULL) info = &own;
    *info = (kac_report_info){0};
    *text = (kac_text){0};
    kac_run_data d;
    kac_status s = kac_run_data_load(&d, folder);
    if (s == KAC_OK) {
        info->n_groups = d.n_groups;
        info->n_steps = d.n_step_events;
        kac_page p = {
            .t = text, .d = &d, .info = info, .finals_left_bytes = FINALS_BYTES, .previews_left_bytes = PREVIEWS_BYTES};
        add_head(&p);
        s = is_tuning(&d) ? kac_page_tune(&p) : add_groups(&p);
        kac_page_facts(&p);
        kac_text_add(text, "</main>\n</body></html>\n");
        info->n_bytes = text->n;
        if (s == KAC_OK && text->failed) s = KAC_FAIL(KAC_E_MEMORY, "not enough memory for the page of %s", folder);
    }
    kac_run_data_free(&d);
    return s;
}

kac_status kac_report_write(const char *folder, kac_report_info *info) {
    kac_text text;
    kac_status s = kac_report_render(&text, folder, info);
    char *path = s == KAC_OK ? kac_path_join(folder, "index.html") : NULL;
    if (s == KAC_OK) s = path == NULL ? KAC_E_MEMORY : kac_file_write(path, text.s, text.n);
    kac_free(path);
    kac_text_free(&text);
    return s;
}
