/* Statistics of a bench on folders whose numbers one can work out by hand. */
#include "check.h"
#include "report/bench_stats.h"
#include "util/bench_folder.h"

/* Two methods, budgets 100, 200, 400, two prompts of two kinds, one seed. */
static const char two_methods[] =
    "{\"kac_bench\": 1, \"methods\": [{\"label\": \"base\", \"method\": \"best-of-n\"}, {\"label\": "
    "\"new\", \"method\": \"dts\"}], \"budgets\": [100, 200, 400], \"budget_unit\": \"nfe\", "
    "\"prompts\": [{\"text\": \"a\", \"category\": \"x\"}, {\"text\": \"b\", \"category\": "
    "\"y\"}], \"seeds\": [7]}";

static void cell(const char *method, double budget, int prompt, double seed, double reward, double judge) {
    bench_line("{\"method\": \"%s\", \"budget\": %g, \"prompt\": %d, \"seed\": %g, \"reward\": %.17g, \"judges\": "
               "{\"j\": %.17g}, "
               "\"seconds\": %g}",
               method, budget, prompt, seed, reward, judge, budget / 50);
}

/* Where curves reach a value: logarithmic between points. */
static void reach(void) {
    const double x[] = {100, 200, 400}, y[] = {1, 3, 2}, holes[] = {1, NAN, 2};
    CHECK_NEAR(kac_bench_reach(x, y, 3, 2), 100 * sqrt(2), 1e-9); /* half way in log x */
    CHECK_NEAR(kac_bench_reach(x, y, 3, 3), 200, 1e-9);
    CHECK_NEAR(kac_bench_reach(x, y, 3, 0.5), 100, 0); /* at once */
    CHECK(isnan(kac_bench_reach(x, y, 3, 3.1)));
    CHECK_NEAR(kac_bench_reach(x, holes, 3, 1.5), 200, 1e-9); /* over the hole: half way from 100 to 400 */
    CHECK(isnan(kac_bench_reach(x, y, 0, 0)));
}

/* The base line reaches 0.5 at 400; the other method 0.2, 0.4, 0.8 at 100, 200, 400, so 0.5 at 200 · 2^(1/4). */
static void speed(void) {
    kac_bench_data d;
    kac_bench_resamples r;
    kac_bench_curves reward, nfe, seconds;
    kac_bench_speed s[2];
    kac_bench_target target;
    const double base[] = {0.1, 0.3, 0.5}, fresh[] = {0.2, 0.4, 0.8};
    for (int b = 0; b < 3; b++)
        for (int p = 0; p < 2; p++) { /* prompts a little apart, the same for both methods */
            cell("base", 100 << b, p, 7, base[b] + (p ? 0.05 : -0.05), 1);
            cell("new", 100 << b, p, 7, fresh[b] + (p ? 0.05 : -0.05), 1);
        }
    CHECK_OK(bench_load(&d, two_methods));
    CHECK(d.n_done == 12 && d.methods[0].baseline && !d.methods[1].baseline);
    CHECK_OK(kac_bench_resamples_init(&r, &d, -1));
    CHECK_OK(kac_bench_curves_init(&reward, &r, KAC_BENCH_REWARD));
    CHECK_OK(kac_bench_curves_init(&nfe, &r, KAC_BENCH_NFE)); /* not said: the budget */
    CHECK_OK(kac_bench_curves_init(&seconds, &r, KAC_BENCH_SECONDS));
    CHECK_NEAR(kac_bench_curve_at(&reward, 1, 2)->mean, 0.8, 1e-12);
    CHECK_OK(kac_bench_speeds(s, &target, &reward, &nfe));
    CHECK(target.method == 0);
    CHECK_NEAR(target.value, 0.5, 1e-12);
    CHECK_NEAR(target.cost, 400, 1e-9);
    CHECK_NEAR(s[0].ratio, 1, 1e-9);
    CHECK_NEAR(s[1].cost, 200 * pow(2, 0.25), 1e-9);
    CHECK_NEAR(s[1].ratio, 2 * pow(2, -0.25), 1e-9);
    CHECK_NEAR(s[1].lo, s[1].ratio, 1e-9); /* the prompts differ by the same in both, so every draw says the same */
    CHECK_NEAR(s[1].hi, s[1].ratio, 1e-9);
    CHECK_OK(kac_bench_speeds(s, &target, &reward, &seconds));
    CHECK_NEAR(s[1].cost, 4 * pow(2, 0.25), 1e-9);
    kac_bench_curves_free(&reward), kac_bench_curves_free(&nfe), kac_bench_curves_free(&seconds);
    kac_bench_resamples_free(&r), kac_bench_data_free(&d);
}

/* The other way round: what is never reached, and what is reached at the smallest budget. */
static void speed_edges(void) {
    kac_bench_data d;
    kac_bench_resamples r;
    kac_bench_curves reward, nfe;
    kac_bench_speed s[2];
    kac_bench_target target;
    for (int better = 0; better < 2; better++) {
        for (int b = 0; b < 3; b++)
            for (int p = 0; p < 2; p++) {
                cell("base", 100 << b, p, 7, 0.5, 1);
                cell("new", 100 << b, p, 7, better ? 0.6 : 0.4, 1);
            }
        CHECK_OK(bench_load(&d, two_methods));
        CHECK_OK(kac_bench_resamples_init(&r, &d, -1));
        CHECK_OK(kac_bench_curves_init(&reward, &r, KAC_BENCH_REWARD));
        CHECK_OK(kac_bench_curves_init(&nfe, &r, KAC_BENCH_NFE));
        CHECK_OK(kac_bench_speeds(s, &target, &reward, &nfe));
        CHECK(better ? s[1].at_once && fabs(s[1].ratio - 4) < 1e-9 : isnan(s[1].cost) && s[1].ratio == 0);
        CHECK_NEAR(s[1].max_cost, 400, 0);
        kac_bench_curves_free(&reward), kac_bench_curves_free(&nfe);
        kac_bench_resamples_free(&r), kac_bench_data_free(&d);
    }
}

static const char one_method[] =
    "{\"kac_bench\": 1, \"methods\": [{\"label\": \"base\", \"method\": \"fk\"}], \"budgets\": [100], "
    "\"prompts\": [\"p\"%s], \"seeds\": [1, 2, 3, 4]}";

/* n prompts with values i, four seeds each that say the same: the band is that of a mean of n prompts, as if there were one seed. The
 * mean of n draws from {0 … n−1} has variance (n² − 1) / 12 / n. */
static void bands(void) {
    enum { n = 40 };
    kac_text json = {0}, more = {0};
    kac_bench_data d;
    kac_bench_resamples r;
    kac_bench_curves c;
    for (int i = 1; i < n; i++) kac_text_add(&more, ", \"p\"");
    kac_text_add(&json, "%.*s", (int)(strstr(one_method, "%s") - one_method), one_method);
    kac_text_add(&json, "%s%s", more.s, strstr(one_method, "%s") + 2);
    for (int i = 0; i < n; i++)
        for (int s = 1; s <= 4; s++) cell("base", 100, i, s, i, 1);
    CHECK_OK(bench_load(&d, json.s));
    CHECK_OK(kac_bench_resamples_init(&r, &d, -1));
    CHECK_OK(kac_bench_curves_init(&c, &r, KAC_BENCH_REWARD));
    const kac_bench_mean *m = kac_bench_curve_at(&c, 0, 0);
    const double sd = sqrt(((double)n * n - 1) / 12 / n);
    CHECK(m->n == 4 * n && !r.of_seeds);
    CHECK_NEAR(m->mean, (n - 1) / 2.0, 1e-12);
    CHECK_NEAR((m->hi - m->lo) / 2, 1.96 * sd,
               0.12 * 1.96 * sd); /* 1000 draws: the ends are off by about 4 % of a deviation */
    CHECK(m->lo < m->mean && m->hi > m->mean);
    double sum = 0;
    for (int i = 0; i < n * KAC_BENCH_DRAWS; i++) sum += r.times[i];
    CHECK_NEAR(sum, (double)n * KAC_BENCH_DRAWS, 0);
    kac_bench_curves_free(&c), kac_bench_resamples_free(&r), kac_bench_data_free(&d);
    kac_text_free(&json), kac_text_free(&more);
}

/* With one prompt the seeds are drawn; with one seed as well there is no band. */
static void single_prompt(void) {
    kac_bench_data d;
    kac_bench_resamples r;
    kac_bench_curves c;
    kac_text json = {0};
    kac_text_add(&json, "%.*s%s", (int)(strstr(one_method, "%s") - one_method), one_method,
                 strstr(one_method, "%s") + 2);
    for (int s = 1; s <= 4; s++) cell("base", 100, 0, s, s, 1);
    CHECK_OK(bench_load(&d, json.s));
    CHECK_OK(kac_bench_resamples_init(&r, &d, -1));
    CHECK_OK(kac_bench_curves_init(&c, &r, KAC_BENCH_REWARD));
    CHECK(r.of_seeds && kac_bench_curve_at(&c, 0, 0)->lo < 2.5 && kac_bench_curve_at(&c, 0, 0)->hi > 2.5);
    kac_bench_curves_free(&c), kac_bench_resamples_free(&r), kac_bench_data_free(&d);
    cell("base", 100, 0, 1, 3, 1);
    CHECK_OK(bench_load(&d, json.s));
    CHECK_OK(kac_bench_resamples_init(&r, &d, -1));
    CHECK_OK(kac_bench_curves_init(&c, &r, KAC_BENCH_REWARD));
    CHECK(kac_bench_curve_at(&c, 0, 0)->mean == 3 && isnan(kac_bench_curve_at(&c, 0, 0)->lo));
    kac_bench_curves_free(&c), kac_bench_resamples_free(&r), kac_bench_data_free(&d);
    kac_text_free(&json);
}

static const char four_prompts[] =
    "{\"kac_bench\": 1, \"methods\": [{\"label\": \"a\", \"method\": \"fk\"}, {\"label\": \"b\", \"method\": \"dts\", "
    "\"baseline\": "
    "true}], \"budgets\": [10, 20, 40, 80], \"prompts\": [{\"text\": \"1\", \"category\": \"x\"}, {\"text\": \"2\", "
    "\"category\": \"x\"}, {\"text\": \"3\", \"category\": \"x\"}, {\"text\": \"4\", \"category\": \"y\"}], \"seeds\": "
    "[0, 1]}";

/* Of seven pairs (one cell is missing) four are won, two lost, one is a tie: 4.5 / 7. */
static void wins(void) {
    static const double a[] = {1, 2, 3, 4, 5, 6, 7, 8}, b[] = {0, 1, 2, 3, 5, 7, 8, 0};
    kac_bench_data d;
    kac_bench_resamples r;
    for (int i = 0; i < 8; i++) cell("a", 20, i / 2, i % 2, a[i], 1);
    for (int i = 0; i < 7; i++) cell("b", 20, i / 2, i % 2, b[i], 1);
    CHECK_OK(bench_load(&d, four_prompts));
    CHECK(d.methods[1].baseline && !d.methods[0].baseline);
    CHECK_OK(kac_bench_resamples_init(&r, &d, -1));
    const kac_bench_mean m = kac_bench_wins(&r, KAC_BENCH_REWARD, 0, 1, 1),
                         o = kac_bench_wins(&r, KAC_BENCH_REWARD, 1, 0, 1);
    CHECK_NEAR(m.mean, 4.5 / 7, 1e-12);
    CHECK_NEAR(m.mean + o.mean, 1, 1e-12);
    CHECK_NEAR(m.lo + o.hi, 1, 1e-9);
    CHECK(m.n == 7 && m.lo < m.mean && m.hi > m.mean);
    CHECK(isnan(kac_bench_wins(&r, KAC_BENCH_REWARD, 0, 1, 0).mean)); /* nothing at that budget */
    kac_bench_resamples_free(&r), kac_bench_data_free(&d);
}

/* x has three prompts of mean 2, y one of 6: overall (2 + 6) / 2, not (2·3 + 6) / 4. */
static void categories(void) {
    static const double v[] = {1, 2, 3, 6};
    kac_bench_data d;
    kac_bench_curves c;
    for (int i = 0; i < 4; i++)
        for (int s = 0; s < 2; s++) cell("a", 10, i, s, v[i], 1);
    CHECK_OK(bench_load(&d, four_prompts));
    CHECK(d.n_categories == 2);
    CHECK_OK(kac_bench_overall_init(&c, &d, KAC_BENCH_REWARD));
    CHECK_NEAR(kac_bench_curve_at(&c, 0, 0)->mean, 4, 1e-12);
    CHECK(kac_bench_curve_at(&c, 0, 0)->lo >= 3.5 && kac_bench_curve_at(&c, 0, 0)->hi <= 4.5);
    CHECK(isnan(kac_bench_curve_at(&c, 1, 0)->mean)); /* nothing finished */
    kac_bench_curves_free(&c), kac_bench_data_free(&d);
}

/* Rewards and judges of four budgets; where over-optimisation begins. The prompts differ by ±0.01. */
static int overdone(const double reward[4], const double judge[4], int *best) {
    kac_bench_data d;
    kac_bench_resamples r;
    kac_bench_curves x, y;
    for (int b = 0; b < 4; b++)
        for (int i = 0; i < 8; i++)
            cell("a", 10 << b, i / 2, i % 2, reward[b] + (i < 4 ? 0.01 : -0.01), judge[b] + (i < 4 ? 0.01 : -0.01));
    CHECK_OK(bench_load(&d, four_prompts));
    CHECK(d.n_judges == 1);
    CHECK_OK(kac_bench_resamples_init(&r, &d, -1));
    CHECK_OK(kac_bench_curves_init(&x, &r, KAC_BENCH_REWARD));
    CHECK_OK(kac_bench_curves_init(&y, &r, KAC_BENCH_JUDGES));
    const int at = kac_bench_overdone(best, &x, &y, 0);
    kac_bench_curves_free(&x), kac_bench_curves_free(&y), kac_bench_resamples_free(&r), kac_bench_data_free(&d);
    return at;
}

static void over_optimisation(void) {
    int best;
    CHECK(overdone((double[]){1, 2, 3, 4}, (double[]){0.5, 0.9, 0.895, 0.7}, &best) == 3 &&
          best == 1); /* 0.895: in the band */
    CHECK(overdone((double[]){1, 2, 3, 4}, (double[]){0.5, 0.9, 0.8, 0.7}, &best) == 2);
    CHECK(overdone((double[]){1, 2, 3, 4}, (double[]){0.5, 0.9, 0.8, 0.9}, &best) == -1); /* it comes back */
    CHECK(overdone((double[]){1, 2, 2, 2}, (double[]){0.5, 0.9, 0.8, 0.7}, &best) == -1); /* the reward does not rise */
    CHECK(overdone((double[]){1, 2, 3, 4}, (double[]){0.5, 0.6, 0.7, 0.8}, &best) == -1 && best == 3);
}

int main(void) {
    reach();
    speed();
    speed_edges();
    bands();
    single_prompt();
    wins();
    categories();
    over_optimisation();
    return check_done();
}
