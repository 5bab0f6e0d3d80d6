/* The end of a bench's page: what the methods were told, what it ran on, what failed, files beside the page. */
#include "html.h"
#include "page_bench.h"
#include "run_data.h"

enum { MAX_ERRORS = 50 };

static void add_value(kac_text *t, const cJSON *v) {
    char *text = cJSON_IsString(v) ? kac_strdup(v->valuestring) : NULL;
    if (text != NULL) {
        kac_html_escape(t, text);
    } else if (cJSON_IsNumber(v)) {
        kac_html_number(t, v->valuedouble);
    } else {
        char *json = cJSON_PrintUnformatted(v);
        kac_html_escape(t, json);
        cJSON_free(json);
    }
    kac_free(text);
}

/* A list within a table: an entry a line. */
static void add_entry(kac_text *t, const cJSON *v) {
    const cJSON *e;
    if (!cJSON_IsArray(v)) {
        add_value(t, v);
        return;
    }
    cJSON_ArrayForEach(e, v) {
        add_value(t, e);
        kac_text_add(t, e->next != NULL ? "<br>" : "");
    }
}

static void add_pairs(kac_text *t, const cJSON *object) {
    const cJSON *v;
    kac_text_add(t, "<table class=\"pairs\">\n");
    cJSON_ArrayForEach(v, object) {
        kac_text_add(t, "<tr><th>");
        kac_html_escape(t, v->string);
        kac_text_add(t, "</th><td>");
        add_entry(t, v);
        kac_text_add(t, "</td></tr>\n");
    }
    kac_text_add(t, "</table>\n");
}

static void add_methods(kac_bench_page *p) {
    const kac_bench_data *d = p->d;
    kac_text *t = p->t;
    kac_text_add(t, "<h3>Methods</h3><div class=\"scroll\"><table class=\"pairs\">\n");
    for (int m = 0; m < d->n_methods; m++) {
        const cJSON *v;
        kac_text_add(t, "<tr>");
        kac_bench_method_head(t, d, m);
        kac_text_add(t, "<td>");
        kac_html_escape(t, d->methods[m].method);
        if (d->methods[m].target[0] != '\0') {
            kac_text_add(t, " · aims at: ");
            kac_html_escape(t, d->methods[m].target);
        }
        if (d->methods[m].baseline) kac_text_add(t, " · baseline");
        cJSON_ArrayForEach(v, d->methods[m].options) {
            kac_text_add(t, " · <code>");
            kac_html_escape(t, v->string);
            kac_text_add(t, v->string != NULL ? " = " : "");
            add_value(t, v);
            kac_text_add(t, "</code>");
        }
        kac_text_add(t, "</td></tr>\n");
    }
    kac_text_add(t, "</table></div>\n");
}

static void add_errors(kac_bench_page *p) {
    const kac_bench_data *d = p->d;
    kac_text *t = p->t;
    int n = 0;
    if (d->n_failed == 0) return;
    kac_text_add(t, "<details><summary><h3>%d failed cells</h3></summary><ul>\n", d->n_failed);
    for (int i = 0; i < d->n_cells && n < MAX_ERRORS; i++) {
        const kac_bench_cell *c = &d->cells[i];
        if (c->done) continue;
        n++;
        kac_text_add(t, "<li><b>");
        kac_html_escape(t, d->methods[c->method].label);
        kac_text_add(t, "</b> at ");
        kac_bench_budget(t, d, c->budget);
        kac_text_add(t, ", prompt %d, seed %g: ", c->prompt, d->seeds[c->seed]);
        kac_html_escape(t, c->error);
        kac_text_add(t, "</li>\n");
    }
    kac_text_add(t, "</ul>%s</details>\n", d->n_failed > MAX_ERRORS ? "<p class=\"note\">The first 50.</p>" : "");
}

void kac_page_bench_facts(kac_bench_page *p) {
    static const char *const keys[] = {"rewards", "judges",      "model",   "machine",
                                       "costs",   "description", "version", "command"};
    static const char *const names[] = {"Rewards", "Judges",      "Model",   "Machine",
                                        "Costs",   "Description", "Version", "Command"};
    kac_text *t = p->t;
    kac_text_add(t, "<section><h2>How it was measured</h2>\n");
    add_errors(p);
    add_methods(p);
    for (int i = 0; i < KAC_COUNT_OF(keys); i++) {
        const cJSON *v = kac_run_at(p->d->file.root, keys[i]), *e;
        if (v == NULL || cJSON_IsNull(v)) continue;
        if (cJSON_IsObject(v) && v->child == NULL) continue;
        kac_text_add(t, "<details><summary><h3>%s</h3></summary>", names[i]);
        if (cJSON_IsObject(v)) {
            add_pairs(t, v);
        } else if (cJSON_IsArray(v)) {
            kac_text_add(t, "<ul>");
            cJSON_ArrayForEach(e, v) {
                kac_text_add(t, "<li>");
                add_value(t, e);
                kac_text_add(t, "</li>");
            }
            kac_text_add(t, "</ul>");
        } else {
            kac_text_add(t, "<p>");
            add_value(t, v);
            kac_text_add(t, "</p>");
        }
        kac_text_add(t, "</details>\n");
    }
    kac_text_add(t,
                 "<p>Beside this page: <a href=\"results.csv\">results.csv</a>, a row for each cell; <a "
                 "href=\"curves.csv\">curves.csv</a>, means and bands; <a href=\"plots/\">plots</a> as PNG and SVG.</p>"
                 "</section>\n");
}
