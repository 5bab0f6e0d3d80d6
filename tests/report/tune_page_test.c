/* The page of a tuning run: what it shows, where it says that a reward is hacked, and logs that make no sense. */
#include "base/base.h"
#include "check.h"
#include "report/report.h"
#include "report/tune_data.h"
#include "util/temp.h"
#include <stdlib.h>

static const char run_json[] =
    "{\"kac_run\": 1, \"tune\": \"alignprop\", \"state\": \"finished\", \"n_rounds\": 3, \"file_round\": 2,"
    " \"rewards\": [{\"name\": \"clip=a/b\", \"weight\": 1}], \"held_out\": [{\"name\": \"judge\"}, {\"name\": "
    "\"<b>\"}],"
    " \"grid\": {\"columns\": 2, \"rows\": 1, \"prompts\": [\"a <script>\", \"b\"]}}";

static kac_text log_text;

static void eval_line(double round, double reward, double judge, double other) {
    kac_text_add(&log_text,
                 "{\"event\": \"eval\", \"round\": %g, \"seconds\": %g, \"reward\": %g, \"held_out\": {\"judge\": %g, "
                 "\"<b>\": %g}, \"held_out_se\": {\"judge\": 0.05, \"<b>\": null}, \"diversity\": %g, \"grid\": "
                 "\"grids/r%g.png\"}\n",
                 round, 10 * round, reward, judge, other, 0.8 - 0.1 * round, round);
}

static void round_line(double round, double reward) {
    kac_text_add(&log_text, "{\"event\": \"round\", \"round\": %g, \"seconds\": 1, \"reward\": %g, \"loss\": 1}\n",
                 round, reward);
}

static void load(kac_run_data *run, kac_tune_data *d) {
    temp_write("run.json", run_json, strlen(run_json));
    temp_write("log.jsonl", log_text.s == NULL ? "" : log_text.s, log_text.n);
    CHECK_OK(kac_run_data_load(run, temp_dir()));
    CHECK_OK(kac_tune_data_load(d, run));
    kac_text_free(&log_text);
}

static void hacking(void) {
    kac_run_data run;
    kac_tune_data d;
    eval_line(0, 0.5, 0.4, 1), eval_line(1, 0.6, 0.6, 1), eval_line(2, 0.7, 0.57, 1), eval_line(3, 0.8, 0.3, 1);
    load(&run, &d);
    CHECK(d.n_evals == 4 && d.n_held_out == 2);
    CHECK(kac_tune_hacked(&d, 0) == 1);  /* reward rises, the judge falls by more than its error */
    CHECK(kac_tune_hacked(&d, 1) == -1); /* nothing falls */
    kac_text page;
    CHECK_OK(kac_report_render(&page, temp_dir(), NULL));
    CHECK(strstr(page.s, "Reward hacking starts after round 1") != NULL);
    CHECK(strstr(page.s, "Diversity has fallen to 62 %") != NULL);
    CHECK(strstr(page.s, "<script>") == NULL && strstr(page.s, "&lt;b&gt;") != NULL);
    CHECK(strstr(page.s, "2 (kept)") != NULL && strstr(page.s, "kac tune") == NULL);
    kac_text_free(&page);
    kac_tune_data_free(&d), kac_run_data_free(&run);
    eval_line(0, 0.5, 0.4, 1), eval_line(1, 0.6, 0.6, 1), eval_line(2, 0.7, 0.57, 1); /* within the error */
    load(&run, &d);
    CHECK(kac_tune_hacked(&d, 0) == -1);
    kac_tune_data_free(&d), kac_run_data_free(&run);
    eval_line(0, 0.5, 0.4, 1), eval_line(1, 0.6, 0.6, 1), eval_line(2, 0.4, 0.3, 1); /* the reward falls too */
    load(&run, &d);
    CHECK(kac_tune_hacked(&d, 0) == -1);
    kac_tune_data_free(&d), kac_run_data_free(&run);
}

/* Rounds that are logged again replace what came after them; lines that are none are left out. */
static void strange_logs(void) {
    kac_run_data run;
    kac_tune_data d;
    round_line(1, 0.1), round_line(2, 0.2), round_line(3, 0.3), round_line(2, 0.25);
    kac_text_add(&log_text, "{\"event\": \"round\", \"round\": -1}\n{\"event\": \"round\"}\n[]\n{\"event\": 3}\nnull\n"
                            "{\"event\": \"round\", \"round\": 1e300}\n{\"event\": \"eval\", \"round\": \"x\"}\n"
                            "{\"event\": \"sweep\", \"round\": 2, \"scale\": 0.5, \"grid\": \"../../x.png\"}\n"
                            "{\"event\": \"sweep\", \"round\": 2, \"scale\": 0.25}\n{\"event\": \"eval\", \"rou");
    load(&run, &d);
    CHECK(d.n_rounds == 2 && d.rounds[1].reward == 0.25);
    CHECK(d.n_evals == 0 && d.n_sweep == 1 && d.sweep[0].scale == 0.25);
    CHECK(d.n_bad_lines == 3);
    kac_text page;
    CHECK_OK(kac_report_render(&page, temp_dir(), NULL));
    CHECK(strstr(page.s, "Curves") != NULL && strstr(page.s, "x.png") == NULL);
    kac_text_free(&page);
    kac_tune_data_free(&d), kac_run_data_free(&run);
    load(&run, &d); /* an empty log */
    CHECK(d.n_rounds == 0 && kac_tune_hacked(&d, 0) == -1);
    CHECK_OK(kac_report_render(&page, temp_dir(), NULL));
    kac_text_free(&page);
    kac_tune_data_free(&d), kac_run_data_free(&run);
}

int main(void) {
    hacking();
    strange_logs();
    return check_done();
}
