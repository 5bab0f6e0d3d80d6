/* Trees of searches: what is drawn of small and of large ones, files that make no sense, and their place on a run's page. */
#include "check.h"
#include "report/report.h"
#include "report/tree_data.h"
#include "util/temp.h"
#include <stdlib.h>

static int count(const char *text, const char *what) {
    int n = 0;
    for (const char *p = strstr(text, what); p != NULL; p = strstr(p + 1, what)) n++;
    return n;
}

/*          root
 *         1    4        1 has two samples, 2 and 3; 4 has one, 5; results: 3 twice, 5 once */
static const char small[] =
    "{\"group\": 0, \"n_nodes\": 6, \"parent\": [-1, 0, 1, 1, 0, 4], \"i_step\": [-1, 0, 10, 10, 0, 10], \"visits\": "
    "[4, 3, 1, 1, 2, 1], \"value\": [0.5, 0.25, -1, 1, 0.75, 0.5], \"log_prob\": [null, null, -2, -0.5, null, -1], "
    "\"chosen\": [3, 3, 5]}";

static kac_status draw(kac_text *page, const char *json) {
    kac_tree_file t;
    kac_status s = kac_tree_file_load(&t, temp_write("tree.json", json, strlen(json)));
    if (s == KAC_OK) s = kac_tree_file_draw(page, &t);
    kac_tree_file_free(&t);
    return s;
}

static void small_tree(void) {
    kac_tree_file t;
    kac_text page = {0};
    CHECK_OK(kac_tree_file_load(&t, temp_write("tree.json", small, strlen(small))));
    CHECK(t.n == 6 && t.n_results == 3 && t.n_chosen[3] == 2 && t.n_children[1] == 2 && t.n_children[0] == 2);
    CHECK(t.value[3] == 1 && t.log_prob[3] == -0.5 && isnan(t.log_prob[0]));
    kac_tree_file_free(&t);
    CHECK_OK(draw(&page, small));
    CHECK(count(page.s, "<circle") == 6 && count(page.s, "<path") == 5);
    CHECK(count(page.s, "class=\"way\"") == 4); /* root–1–3 and root–4–5 */
    CHECK(count(page.s, " chosen\"") == 2 && count(page.s, "a result, 2 times") == 1);
    CHECK(count(page.s, "circle class=\"t0\"") == 1 && count(page.s, "circle class=\"t8 chosen\"") == 1); /* −1, 1 */
    CHECK(count(page.s, "circle class=\"tn\"") == 1);                                                     /* the root */
    CHECK(strstr(page.s, "step 10: 3<") != NULL && strstr(page.s, "are hidden") == NULL);
    CHECK(strstr(page.s, "probability 0.607") != NULL);
    kac_text_free(&page);
}

/* A root with n children, each with one sample; the last one is the only result and the least visited. */
static char *wide(int n) {
    kac_text t = {0};
    kac_text_add(&t, "{\"parent\": [-1");
    for (int i = 0; i < n; i++) kac_text_add(&t, ",0,%d", 2 * i + 1);
    kac_text_add(&t, "], \"i_step\": [-1");
    for (int i = 0; i < n; i++) kac_text_add(&t, ",0,5");
    kac_text_add(&t, "], \"visits\": [%d", n);
    for (int i = 0; i < n; i++) kac_text_add(&t, ",%d,%d", n - i, n - i);
    kac_text_add(&t, "], \"value\": [0");
    for (int i = 0; i < n; i++) kac_text_add(&t, ",%d,null", i);
    kac_text_add(&t, "], \"chosen\": [%d]}", 2 * n);
    return t.s;
}

static void large_tree(void) {
    kac_text page = {0};
    char *json = wide(30000);
    CHECK_OK(draw(&page, json));
    CHECK(page.n < 40000); /* does not grow with the tree */
    CHECK(strstr(page.s, "step 0: 41 of 30000") != NULL && strstr(page.s, "step 5: 41 of 30000") != NULL);
    CHECK(count(page.s, "<circle") == 83 && count(page.s, "class=\"way\"") == 2);
    CHECK(strstr(page.s, "59\u202f918 are hidden") != NULL);
    kac_free(json);
    kac_text_free(&page);
}

/* A chain: as many levels as states. */
static void deep_tree(void) {
    kac_text json = {0}, page = {0};
    for (int list = 0; list < 3; list++) {
        kac_text_add(&json, "%s\"%s\": [-1", list == 0 ? "{" : ", ",
                     list == 0   ? "parent"
                     : list == 1 ? "i_step"
                                 : "visits");
        if (list == 2) json.n -= 2, json.s[json.n] = '\0', kac_text_add(&json, "1");
        for (int i = 0; i < 5000; i++) kac_text_add(&json, ",%d", list == 2 ? 1 : i);
        kac_text_add(&json, "]");
    }
    kac_text_add(&json, "}");
    CHECK_OK(draw(&page, json.s));
    CHECK(strstr(page.s, "5001 levels is too deep to draw") != NULL && count(page.s, "<svg") == 0);
    kac_text_free(&json), kac_text_free(&page);
}

static void strange_trees(void) {
    static const char *const bad[] = {
        "{}",
        "[]",
        "{\"parent\": []}",
        "{\"parent\": [-1], \"i_step\": [-1]}",
        "{\"parent\": [-1, 1], \"i_step\": [-1, 0], \"visits\": [1, 1]}",    /* its own parent */
        "{\"parent\": [-1, 7], \"i_step\": [-1, 0], \"visits\": [1, 1]}",    /* a later parent */
        "{\"parent\": [-2], \"i_step\": [-1], \"visits\": [1]}",             /* none */
        "{\"parent\": [-1, 0], \"i_step\": [-1, -1], \"visits\": [1, 1]}",   /* no step further */
        "{\"parent\": [-1, 0], \"i_step\": [-1, 0], \"visits\": [1, 1, 1]}", /* lists of two lengths */
        "{\"parent\": [-1, 0], \"i_step\": [-1, 0], \"visits\": [1, -5]}",
        "{\"parent\": [-1, 1e300], \"i_step\": [0, 1]}",
        "{\"parent\": [-1, \"0\"], \"i_step\": [-1, 0], \"visits\": [1, 1]}",
        "{\"parent\": [-1, 0], \"i_st",
    };
    kac_text page = {0};
    for (int i = 0; i < KAC_COUNT_OF(bad); i++) CHECK_FAILS(draw(&page, bad[i]), KAC_E_FORMAT, "tree.json");
    CHECK(page.n == 0);
    /* what may be missing or strange */
    CHECK_OK(draw(&page, "{\"parent\": [-1], \"i_step\": [-1], \"visits\": [0]}"));
    CHECK_OK(draw(
        &page,
        "{\"parent\": [-1, -1], \"i_step\": [-1, 3], \"visits\": [1, 0], \"value\": [\"a\", 1e999], \"log_prob\": 3, "
        "\"chosen\": [-1, 9, \"b\", 1.5]}"));
    CHECK(strstr(page.s, "nan") == NULL && strstr(page.s, "inf") == NULL);
    kac_text_free(&page);
}

static void on_a_page(void) {
    static const char run[] = "{\"kac_run\": 1, \"state\": \"finished\", \"steer\": \"dts\", \"groups\": [{\"prompt\": "
                              "\"a\"}, {\"prompt\": \"b\"}]}";
    static const char events[] = "{\"event\": \"search\", \"group\": 0, \"nfe\": 10, \"best_reward\": 0.1, \"log_z\": "
                                 "null, \"ess\": 1}\n"
                                 "{\"event\": \"search\", \"group\": 0, \"nfe\": 30, \"best_reward\": 0.9, \"log_z\": "
                                 "null, \"ess\": 1}\n"
                                 "{\"event\": \"search\", \"group\": 0, \"nfe\": 20, \"best_reward\": 0.2, \"log_z\": "
                                 "null, \"ess\": 2}\n" /* again from 10 */
                                 "{\"event\": \"search\", \"group\": 0, \"nfe\": \"x\", \"best_reward\": "
                                 "0.3}\n{\"event\": \"search\", \"nfe\": 4}\n"
                                 "{\"event\": \"tree\", \"group\": 0, \"file\": \"tree.json\"}\n"
                                 "{\"event\": \"tree\", \"group\": 1, \"file\": \"../tree.json\"}\n";
    kac_text page;
    temp_write("run.json", run, strlen(run));
    temp_write("events.jsonl", events, strlen(events));
    temp_write("tree.json", small, strlen(small));
    CHECK_OK(kac_report_render(&page, temp_dir(), NULL));
    CHECK(count(page.s, "Tree of the search:") == 1 &&
          count(page.s, "class=\"chart\"") == 2); /* reward, ess; no log Z */
    CHECK(strstr(page.s, "Best reward so far") != NULL && strstr(page.s, "0.9<") == NULL);
    kac_text_free(&page);
    temp_write("tree.json", "{", 1);
    CHECK_OK(kac_report_render(&page, temp_dir(), NULL));
    CHECK(strstr(page.s, "cannot be read") != NULL);
    kac_text_free(&page);
}

int main(void) {
    small_tree();
    large_tree();
    deep_tree();
    strange_trees();
    on_a_page();
    return check_done();
}
