#include "html.h"
#include "page.h"
#include <math.h>
#include <string.h>

static void row_open(kac_text *t, const char *name) {
    kac_text_add(t, "<tr><th>");
    kac_html_escape(t, name);
    kac_text_add(t, "</th>");
}

static void add_count(kac_text *t, const char *name, double v) {
    if (!isfinite(v)) return;
    row_open(t, name);
    kac_text_add(t, "<td class=\"n\">");
    kac_html_count(t, v);
    kac_text_add(t, "</td></tr>\n");
}

static void add_bytes(kac_text *t, const char *name, double v) {
    if (!isfinite(v)) return;
    row_open(t, name);
    kac_text_add(t, "<td class=\"n\">");
    kac_html_bytes(t, v);
    kac_text_add(t, "</td></tr>\n");
}

static void add_costs(kac_page *p) {
    kac_text *t = p->t;
    const cJSON *run = p->d->run.root, *counts = kac_run_at(run, "counts"), *seconds = kac_run_at(run, "seconds");
    if (counts == NULL) { /* of a run that did not end: as far as its events tell */
        const cJSON *line;
        cJSON_ArrayForEach(line, p->d->events) if (kac_run_at(line, "counts") != NULL) counts =
            kac_run_at(line, "counts");
    }
    if (counts == NULL && seconds == NULL) return;
    kac_text_add(t, "<section><h2>What it took</h2><div class=\"two\">\n<table class=\"pairs\">\n");
    add_count(t, "states denoised", kac_run_number(counts, "denoiser"));
    add_count(t, "states denoised with a gradient", kac_run_number(counts, "denoiser_grad"));
    add_count(t, "denoiser calls", kac_run_number(counts, "denoiser_calls"));
    add_count(t, "pictures decoded", kac_run_number(counts, "decoder"));
    add_count(t, "rewards computed", kac_run_number(counts, "reward"));
    add_count(t, "rewards with a gradient", kac_run_number(counts, "reward_grad"));
    add_bytes(t, "peak memory", kac_run_number(run, "peak_bytes"));
    add_bytes(t, "planned memory", kac_run_number(run, "plan_bytes"));
    const double flops = kac_run_number(run, "flops");
    if (isfinite(flops)) {
        row_open(t, "arithmetic");
        kac_text_add(t, "<td class=\"n\">%.4g GFLOP</td></tr>\n", flops / 1e9);
    }
    kac_text_add(t, "</table>\n<table class=\"pairs\">\n");
    const cJSON *v;
    cJSON_ArrayForEach(v, seconds) {
        if (!cJSON_IsNumber(v)) continue;
        row_open(t, v->string);
        kac_text_add(t, "<td class=\"n\">%.3f s</td></tr>\n", v->valuedouble);
    }
    kac_text_add(t, "</table></div></section>\n");
}

static bool in_list(const cJSON *list, const char *name) {
    const cJSON *v;
    cJSON_ArrayForEach(v, list) if (cJSON_IsString(v) && name != NULL && strcmp(v->valuestring, name) == 0) return true;
    return false;
}

static void add_value(kac_text *t, const cJSON *v) {
    const cJSON *e;
    if (cJSON_IsString(v))
        kac_html_escape(t, v->valuestring);
    else if (cJSON_IsNumber(v))
        kac_html_number(t, v->valuedouble);
    else if (cJSON_IsBool(v))
        kac_text_add(t, cJSON_IsTrue(v) ? "yes" : "no");
    else if (cJSON_IsArray(v))
        cJSON_ArrayForEach(e, v) {
            add_value(t, e);
            if (e->next != NULL) kac_text_add(t, "<br>");
        }
}

static void add_options(kac_page *p) {
    kac_text *t = p->t;
    const cJSON *run = p->d->run.root, *options = kac_run_at(run, "options"), *given = kac_run_at(run, "given"), *v;
    if (!cJSON_IsObject(options)) return;
    kac_text_add(
        t,
        "<section><h2>Options</h2><p class=\"note\">Those that were given are coloured; the others are defaults.</p>\n"
        "<div class=\"two\"><table class=\"pairs\">\n");
    const int half = (cJSON_GetArraySize(options) + 1) / 2;
    int i = 0;
    cJSON_ArrayForEach(v, options) {
        if (i++ == half) kac_text_add(t, "</table>\n<table class=\"pairs\">\n");
        row_open(t, v->string);
        kac_text_add(t, "<td%s>", in_list(given, v->string) ? " class=\"given\"" : "");
        add_value(t, v);
        kac_text_add(t, "</td></tr>\n");
    }
    kac_text_add(t, "</table></div></section>\n");
}

static void add_pair(kac_text *t, const cJSON *object, const char *key, const char *name) {
    const cJSON *v = kac_run_at(object, key);
    if (v == NULL || cJSON_IsNull(v)) return;
    row_open(t, name);
    kac_text_add(t, "<td>");
    add_value(t, v);
    kac_text_add(t, "</td></tr>\n");
}

static void add_origin(kac_page *p) {
    kac_text *t = p->t;
    const cJSON *run = p->d->run.root, *model = kac_run_at(run, "model"), *machine = kac_run_at(run, "machine"), *v;
    if (model == NULL && machine == NULL) return;
    kac_text_add(t, "<section><h2>Made with</h2>\n<table class=\"pairs\">\n");
    add_pair(t, run, "version", "kac");
    add_pair(t, model, "class", "model");
    add_pair(t, model, "path", "folder");
    cJSON_ArrayForEach(v, kac_run_at(run, "rewards")) {
        row_open(t, "reward");
        kac_text_add(t, "<td>");
        kac_html_escape(t, kac_run_text(v, "name", ""));
        kac_text_add(t, " · weight ");
        kac_html_number(t, kac_run_number(v, "weight"));
        const cJSON *shaping;
        cJSON_ArrayForEach(shaping, kac_run_at(v, "shapings")) {
            kac_text_add(t, " · ");
            kac_html_escape(t, cJSON_IsString(shaping) ? shaping->valuestring : "");
        }
        kac_text_add(t, "</td></tr>\n");
    }
    add_pair(t, machine, "backend", "backend");
    add_pair(t, machine, "dtype", "arithmetic");
    add_pair(t, machine, "threads", "threads");
    add_pair(t, machine, "cpu", "processor");
    add_pair(t, machine, "onednn", "oneDNN");
    kac_text_add(t, "</table>\n");
    if (kac_run_at(model, "files") != NULL) {
        kac_text_add(
            t, "<details><summary class=\"note\">Checksums of the model's files</summary><table class=\"pairs\">\n");
        cJSON_ArrayForEach(v, kac_run_at(model, "files")) {
            row_open(t, kac_run_text(v, "path", ""));
            kac_text_add(t, "<td><code>");
            kac_html_escape(t, kac_run_text(v, "sha256", "–"));
            kac_text_add(t, "</code></td></tr>\n");
        }
        kac_text_add(t, "</table></details>\n");
    }
    kac_text_add(t, "</section>\n");
}

/* As a shell takes it. */
static void add_quoted(kac_text *t, const char *word) {
    const bool plain =
        word[0] != '\0' &&
        strspn(word, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_=./:,+@%") == strlen(word);
    if (plain) {
        kac_html_escape(t, word);
        return;
    }
    kac_text_add(t, "&#39;");
    for (; *word != '\0'; word++) {
        const char one[2] = {*word, '\0'};
        kac_html_escape(t, *word == '\'' ? "'\\''" : one);
    }
    kac_text_add(t, "&#39;");
}

static void add_again(kac_page *p) {
    kac_text *t = p->t;
    const cJSON *command = kac_run_at(p->d->run.root, "command"), *v;
    if (!cJSON_IsArray(command) || command->child == NULL) return;
    kac_text_add(
        t, "<section><h2>Again</h2><p class=\"note\">%s</p>\n<pre class=\"command\">",
        kac_run_text(p->d->run.root, "tune", NULL) != NULL
            ? "The same seed and options give the same LoRA, for any number of threads."
            : "The same seed and options give the same pictures, for any number of threads and any batch size; "
              "<code>--first-particle K --particles 1 --steer none</code> makes one plain sample alone.");
    cJSON_ArrayForEach(v, command) {
        add_quoted(t, cJSON_IsString(v) ? v->valuestring : "");
        if (v->next != NULL) kac_text_add(t, " ");
    }
    kac_text_add(t, "</pre></section>\n");
}

void kac_page_facts(kac_page *p) {
    add_costs(p);
    add_options(p);
    add_origin(p);
    add_again(p);
}
