/* The folder of a bench as it may be found: read, shown, never trusted; the files beside the page. */
#include "check.h"
#include "io/image.h"
#include "report/bench_files.h"
#include "util/bench_folder.h"
#include "util/temp.h"
#include <stdlib.h>

static const char json[] =
    "{\"kac_bench\": 1, \"title\": \"T <script>alert(1)</script>\", \"methods\": [{\"label\": \"best\", \"method\": "
    "\"best-of-n\", "
    "\"target\": \"the <mode>\", \"options\": {\"lambda\": \"<i>\"}}, {\"label\": \"a<b>,\\\"q\\\"\", \"method\": "
    "\"dts\"}], "
    "\"budgets\": [25, 50, 100], \"budget_unit\": \"nfe\", \"prompts\": [{\"text\": \"x & <img src=x "
    "onerror=alert(1)>\", "
    "\"category\": \"k<1>\", \"id\": \"i,1\"}, {\"text\": \"two\", \"category\": \"k2\"}, {\"text\": \"three\", "
    "\"category\": "
    "\"k2\"}], \"seeds\": [3, 18446744073709551615], \"rewards\": [\"clip=<u>\"], \"judges\": [\"j\"]}";
static const char *const labels[] = {"best", "a<b>,\\\"q\\\""};

static void line(int method, double budget, int prompt, double seed, double reward, const char *more) {
    bench_line(
        "{\"method\": \"%s\", \"budget\": %g, \"prompt\": %d, \"seed\": %.17g, \"reward\": %g, \"mean_reward\": %g, "
        "\"judges\": {\"j<j>=a/b\": %g}, \"nfe\": %g, \"seconds\": %g, \"flops\": %g%s}",
        labels[method], budget, prompt, seed, reward, reward - 0.1, 1 - reward, budget, budget / 10, budget * 1e9,
        more);
}

static void every_line(const char *more) {
    for (int m = 0; m < 2; m++)
        for (int b = 0; b < 3; b++)
            for (int p = 0; p < 3; p++)
                for (int s = 0; s < 2; s++)
                    line(m, 25 << b, p, s ? 18446744073709551615.0 : 3, 0.1 * (b + 1) * (m + 1) + 0.01 * p, more);
}

static int count(const char *text, const char *what) {
    int n = 0;
    for (const char *p = strstr(text, what); p != NULL; p = strstr(p + 1, what)) n++;
    return n;
}

/* What is wrong with one line concerns that line alone. */
static void strange_lines(void) {
    kac_bench_data d;
    line(0, 25, 0, 3, 0.5, "");
    line(0, 25, 0, 3, 0.7,
         ", \"picture\": \"../../x.png\", \"tree\": \"/y\", \"error\": null"); /* of two the later counts */
    line(1, 50, 2, 3, 0.25, ", \"picture\": \"pictures/1.png\"");
    line(0, 26, 0, 3, 1, ""), line(0, 25, 3, 3, 1, ""), line(0, 25, -1, 3, 1, ""), line(0, 25, 0, 4, 1, "");
    bench_text("{\"method\": \"other\", \"budget\": 25, \"prompt\": 0, \"seed\": 3, \"reward\": 1}\n"
               "{\"method\": 3, \"budget\": \"25\", \"prompt\": [], \"seed\": {}, \"reward\": true}\n"
               "{\"method\": \"best\", \"budget\": 25, \"prompt\": 0.5, \"seed\": 3, \"reward\": 1}\n"
               "{\"method\": \"best\", \"budget\": 25, \"prompt\": 1, \"seed\": 3, \"reward\": \"much\"}\n"
               "{\"method\": \"best\", \"budget\": 25, \"prompt\": 1e300, \"seed\": 3, \"reward\": 1}\n"
               "[1, 2]\nnull\n\n\n\"text\"\n");
    bench_text("{\"method\": \"best\", \"budget\": 50, \"prompt\": 1, \"seed\": 3, \"error\": \"lost <b>\"}\n");
    bench_text("{\"method\": \"best\", \"budget\": 100, \"prompt\": 1, \"seed\": 3, \"reward\": 1, \"judges\": [], "
               "\"counts\": 3, "
               "\"nfe\": 1e999}\n");
    bench_text("{\"method\": \"best\", \"budget\": 25, \"prompt\": 0, \"se");
    CHECK_OK(bench_load(&d, json));
    CHECK(d.n_done == 3 && d.n_failed == 1 && d.n_strange_lines == 9 && d.n_bad_lines == 4);
    const kac_bench_cell *c = kac_bench_cell_at(&d, 0, 0, 0, 0);
    if (CHECK(c != NULL)) {
        CHECK_NEAR(kac_bench_value(&d, c, KAC_BENCH_REWARD), 0.7, 0);
        CHECK(c->picture == NULL && c->tree == NULL);
    }
    c = kac_bench_cell_at(&d, 1, 1, 2, 0);
    if (CHECK(c != NULL)) CHECK_TEXT(c->picture, "pictures/1.png");
    CHECK(kac_bench_cell_at(&d, 0, 1, 1, 0) == NULL); /* failed */
    c = kac_bench_cell_at(&d, 0, 2, 1, 0);
    if (CHECK(c != NULL)) CHECK_NEAR(kac_bench_value(&d, c, KAC_BENCH_NFE), 100, 0); /* not a number: the budget */
    kac_bench_data_free(&d);
}

/* One line with an error, then done again: the cell is finished; the other way round it is not. */
static void done_again(void) {
    kac_bench_data d;
    bench_text("{\"method\": \"best\", \"budget\": 25, \"prompt\": 0, \"seed\": 3, \"error\": \"lost\"}\n");
    line(0, 25, 0, 3, 0.5, "");
    CHECK_OK(bench_load(&d, json));
    CHECK(d.n_done == 1 && d.n_failed == 0 && d.n_cells == 1);
    kac_bench_data_free(&d);
}

/* Budgets below what a method needs have no cells; nothing is missing there. */
static void impossible_cells(void) {
    kac_text page;
    kac_bench_report_info info;
    bench_write("{\"methods\": [{\"label\": \"a\"}, {\"label\": \"b\"}], \"budgets\": [10, 20], \"seeds\": [0], "
                "\"prompts\": [\"p\", "
                "\"q\"], \"costs\": [{\"label\": \"b\", \"particle_nfe\": 15}, {\"label\": \"c\"}, 3]}");
    CHECK_OK(kac_bench_report_render(&page, temp_dir(), &info));
    CHECK(info.n_cells == 6 && strstr(page.s, "0 of 6 cells are finished") != NULL);
    kac_text_free(&page);
}

static void refused(const char *text, const char *why, kac_status status) {
    kac_bench_data d;
    line(0, 25, 0, 3, 0.5, "");
    CHECK_FAILS(bench_load(&d, text), status, why);
    kac_bench_data_free(&d);
    CHECK_FAILS(kac_bench_report_write(temp_dir(), NULL), status, why);
}

static void strange_descriptions(void) {
    refused("[]", "object", KAC_E_FORMAT);
    refused("{\"methods\": [{\"label\": \"a", "not valid JSON", KAC_E_FORMAT);
    refused("{}", "\"methods\" must be a list", KAC_E_FORMAT);
    refused("{\"methods\": [], \"budgets\": [1]}", "\"methods\" must be a list", KAC_E_FORMAT);
    refused("{\"methods\": [{\"label\": \"a\"}, {\"label\": \"a\"}]}", "two methods have the label \"a\"",
            KAC_E_FORMAT);
    refused("{\"methods\": [{}], \"budgets\": [\"5\"]}", "entry 0 of \"budgets\" must be a number", KAC_E_FORMAT);
    refused("{\"methods\": [{}], \"budgets\": [5, 5], \"seeds\": [1], \"prompts\": [1]}", "5 comes after 5",
            KAC_E_FORMAT);
    refused("{\"methods\": [{}], \"budgets\": [0, 5], \"seeds\": [1], \"prompts\": [1]}", "not above 0", KAC_E_FORMAT);
    refused("{\"methods\": [{}], \"budgets\": [5], \"seeds\": [], \"prompts\": [1]}", "\"seeds\"", KAC_E_FORMAT);
    refused("{\"methods\": [{}], \"budgets\": [5], \"seeds\": [1], \"prompts\": 7}", "\"prompts\"", KAC_E_FORMAT);
    kac_text many = {0};
    kac_text_add(&many, "{\"methods\": [{}], \"budgets\": [5], \"seeds\": [0");
    for (int i = 1; i < 5000; i++) kac_text_add(&many, ",%d", i);
    kac_text_add(&many, "], \"prompts\": [0");
    for (int i = 1; i < 5000; i++) kac_text_add(&many, ",0");
    kac_text_add(&many, "]}");
    refused(many.s, "25000000 cells", KAC_E_SHAPE);
    kac_text_free(&many);
    CHECK_FAILS(kac_bench_report_write("/nonexistent", NULL), KAC_E_IO, NULL);
}

/* Nothing that others wrote becomes markup, a script or an address elsewhere. */
static void escapes(const char *page) {
    CHECK(count(page, "<script") == 0 && count(page, "<img src=x") == 0 && count(page, "<b>,") == 0);
    CHECK(count(page, "<i>") == 0 && count(page, "<u>") == 0 && count(page, "<mode>") == 0 && count(page, "k<1>") == 0);
    CHECK(count(page, "&lt;script&gt;") > 0 && count(page, "a&lt;b&gt;,&quot;q&quot;") > 0 &&
          count(page, "k&lt;1&gt;") > 0);
    CHECK(count(page, "http://") == 0 && count(page, "https://") == 0 && count(page, "javascript:") == 0);
    CHECK(count(page, "default-src 'none'") == 1);
    static const char *const pairs[][2] = {{"<section", "</section>"}, {"<table", "</table>"}, {"<svg", "</svg>"},
                                           {"<details", "</details>"}, {"<tr>", "</tr>"},      {"<ul", "</ul>"}};
    for (int i = 0; i < KAC_COUNT_OF(pairs); i++) CHECK(count(page, pairs[i][0]) == count(page, pairs[i][1]));
}

static void whole_page(void) {
    kac_text page;
    kac_bench_report_info info;
    every_line(", \"picture\": \"javascript:alert(1)/a b#c.png\", \"tree\": \"trees/none.json\", \"ess\": 3");
    bench_write(json);
    if (!CHECK_OK(kac_bench_report_render(&page, temp_dir(), &info))) return;
    escapes(page.s);
    CHECK(info.n_cells == 36 && info.n_done == 36 && info.n_failed == 0 && info.n_prompts_shown == 3);
    CHECK(info.n_images == 18 && count(page.s, "<img") == 18 && count(page.s, "loading=\"lazy\"") == 18);
    CHECK(count(page.s, "src=\"javascript%3Aalert%281%29/a%20b%23c.png\"") == 18);
    CHECK(count(page.s, "class=\"toggle\"") == 2 && count(page.s, "#m1:not(:checked)~.curves .m1{display:none}") == 1);
    CHECK(strstr(page.s, "<td class=\"aim\">the &lt;mode&gt;</td>") != NULL);
    /* means 0.11, 0.21, 0.31 and 0.21, 0.41, 0.61: the second reaches 0.31 half way from 25 to 50, at 25 √2 of 100 */
    CHECK(strstr(page.s, "2.83×") != NULL);
    CHECK(strstr(page.s, "over-optimises from") != NULL); /* the judge is 1 − reward */
    kac_text_free(&page);
}

static void unfinished(void) {
    kac_text page;
    kac_bench_report_info info;
    bench_write(json); /* nothing yet */
    CHECK_OK(kac_bench_report_render(&page, temp_dir(), &info));
    CHECK(info.n_done == 0 && strstr(page.s, "No cell is finished yet") != NULL && count(page.s, "<svg") == 0);
    kac_text_free(&page);
    line(0, 50, 1, 3, 0.5, ""); /* a single cell */
    bench_text("{\"method\": \"best\", \"budget\": 25, \"prompt\": 0, \"seed\": 3, \"error\": \"lost <b>\"}\n");
    bench_write(json);
    CHECK_OK(kac_bench_report_render(&page, temp_dir(), &info));
    CHECK(strstr(page.s, "1 of 36 cells are finished, 1 failed") != NULL && strstr(page.s, "lost &lt;b&gt;") != NULL);
    CHECK(strstr(page.s, "nan") == NULL && strstr(page.s, "inf") == NULL);
    kac_text_free(&page);
    CHECK_OK(kac_bench_report_write(temp_dir(), &info));
}

/* A number of a field of a line of a file. */
static double field(const char *text, int row, int column) {
    for (; row > 0; row--) text = strchr(text, '\n') + 1;
    for (bool quoted = false; column > 0; text++) {
        quoted ^= *text == '"';
        column -= *text == ',' && !quoted;
    }
    return strtod(text, NULL);
}

static void files(void) {
    kac_bench_report_info info;
    char *text;
    size_t n;
    every_line("");
    bench_write(json);
    CHECK_OK(kac_bench_report_write(temp_dir(), &info));
    CHECK(info.n_plots == 9 && temp_count(temp_path("plots")) == 18); /* reward, judge, mean reward; three costs */
    CHECK_OK(kac_file_read(&text, &n, temp_path("results.csv"), 1 << 20));
    CHECK(count(text, "\n") == 37);
    CHECK(strstr(text, "\"a<b>,\"\"q\"\"\",25,0,3,\"i,1\",k<1>,x & <img src=x onerror=alert(1)>,0.2,") != NULL);
    kac_free(text);
    CHECK_OK(kac_file_read(&text, &n, temp_path("curves.csv"), 1 << 20));
    CHECK(count(text, "\n") == 7 && strstr(text, ",j<j>=a/b,j<j>=a/b_low,j<j>=a/b_high") != NULL);
    CHECK_NEAR(field(text, 6, 3), 0.61, 1e-9); /* the second method at 100: mean reward of the best pictures */
    CHECK(field(text, 6, 4) < 0.61 && field(text, 6, 5) > 0.61);
    kac_free(text);
    CHECK_OK(kac_file_read(&text, &n, temp_path("plots/reward_nfe.svg"), 1 << 20));
    CHECK(count(text, "<polyline") > 10 && count(text, "<polygon") == 2 && strstr(text, "a&lt;b&gt;,") != NULL);
    kac_free(text);
    kac_image image;
    if (!CHECK_OK(kac_image_load(&image, temp_path("plots/judge1_j_j__seconds.png")))) return;
    int n_green = 0, n_orange = 0; /* lines of both methods are there */
    for (int i = 0; i < image.width * image.height; i++) {
        const uint8_t *p = image.rgb + 3 * i;
        n_green += p[0] == 0x2f && p[1] == 0x6f && p[2] == 0x5e;
        n_orange += p[0] == 0xb5 && p[1] == 0x53 && p[2] == 0x2a;
    }
    CHECK(image.width > 1200 && image.height > 1000 && n_green > 1000 && n_orange > 1000);
    kac_image_free(&image);
}

int main(void) {
    strange_lines();
    done_again();
    impossible_cells();
    strange_descriptions();
    whole_page();
    unfinished();
    files();
    return check_done();
}
