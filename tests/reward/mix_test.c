/* The texts of rewards, their shapings and combinations: hand-computed values, and gradients against finite differences. */
#include "base/memory.h"
#include "check.h"
#include "reward/mix.h"
#include "util/temp.h"

/* ---- texts ---- */

static void test_text(const char *text, const char *name, const char *path, double weight, const char *shapings) {
    kac_reward_spec s;
    if (!CHECK_OK(kac_reward_spec_parse(&s, text))) return;
    char all[256] = "", one[64];
    for (int i = 0; i < s.n_shapings; i++) {
        strncat(all, i > 0 ? "," : "", sizeof all - strlen(all) - 1);
        strncat(all, kac_shaping_text(&s.shapings[i], one), sizeof all - strlen(all) - 1);
    }
    CHECK_TEXT(s.name, name);
    CHECK_TEXT(s.path == NULL ? "(none)" : s.path, path == NULL ? "(none)" : path);
    CHECK_NEAR(s.weight, weight, 0);
    CHECK_TEXT(all, shapings);
    kac_reward_spec_free(&s);
}

static void test_texts(void) {
    test_text("jpeg", "jpeg", NULL, 1, "");
    test_text("jpeg:-0.01", "jpeg", NULL, -0.01, "");
    test_text("jpeg:2,target=0.3", "jpeg", NULL, 2, "target=0.3");
    test_text("jpeg,target=0.3:2", "jpeg", NULL, 2, "target=0.3");
    test_text("clip=a/b", "clip", "a/b", 1, "");
    test_text("clip=a:b/c:2", "clip", "a:b/c", 2, "");
    test_text("clip=a:3:2", "clip", "a:3", 2, "");
    test_text("clip=C:", "clip", "C:", 1, "");
    test_text("clip=a:nan", "clip", "a:nan", 1, "");
    test_text("clip=x=y,z", "clip", "x=y", 1, "z");
    test_text("clip=a,b:.5", "clip", "a,b", 0.5, "");
    test_text("clip=\"a:2\"", "clip", "a:2", 1, "");
    test_text("clip='a,z':3,z=1/2", "clip", "a,z", 3, "z=1/2");
    test_text("command=\"p q\" -x \"y\"", "command", "\"p q\" -x \"y\"", 1, "");
    test_text("command=python3 s.py --n 2:1", "command", "python3 s.py --n 2", 1, "");
    test_text("clip=", "clip", "", 1, "");
    test_text("a,clamp=-1/2,sigmoid=0.5,sigmoid=1/2,log,exp,z:4", "a", NULL, 4,
              "clamp=-1/2,sigmoid=0.5/1,sigmoid=1/2,log,exp,z");
    test_text("a,tanh,tanh=1,tanh=1/3,hinge=-2", "a", NULL, 1, "tanh=0/1,tanh=1/1,tanh=1/3,hinge=-2");
}

static void refuse_text(const char *text, const char *why) {
    kac_reward_spec s;
    CHECK_FAILS(kac_reward_spec_parse(&s, text), KAC_E_USAGE, why);
}

static void test_bad_texts(void) {
    refuse_text("", "names no reward");
    refuse_text("=x", "names no reward");
    refuse_text(":2", "names no reward");
    refuse_text("jpeg:0", "weight");
    refuse_text("jpeg:1e999", "weight");
    refuse_text("jpeg:abc", "neither a weight");
    refuse_text("jpeg:", "neither a weight");
    refuse_text("jpeg:1:2", "neither a weight");
    refuse_text("jpeg,", "neither a weight");
    refuse_text("jpeg,targt=1", "did you mean \"target\"");
    refuse_text("jpeg,sigmod=1", "did you mean \"sigmoid\"");
    refuse_text("clip=DIR,hing=1", "in quotes");
    refuse_text("jpeg,target", "target=T");
    refuse_text("jpeg,target=", "target=T");
    refuse_text("jpeg,target=1/2", "target=T");
    refuse_text("jpeg,target=x", "target=T");
    refuse_text("jpeg,target=nan", "target=T");
    refuse_text("jpeg,clamp=1", "clamp=LO/HI");
    refuse_text("jpeg,clamp=2/1", "smaller");
    refuse_text("jpeg,sigmoid=0/0", "greater than 0");
    refuse_text("jpeg,z=1", "z=MEAN/STD");
    refuse_text("jpeg,z=1/-1", "greater than 0");
    refuse_text("jpeg,log=2", "write log");
    refuse_text("jpeg,z,z,z,z,z,z,z,z,z", "at most");
}

/* ---- combinations ---- */

typedef struct mix_case {
    const char *combine;
    const char *texts[4];
    double r[4], total, uncertainty; /* NAN: none */
} mix_case;

static int open_mix(kac_mix **m, kac_reward_spec specs[4], const kac_reward_spec *list[4], const char *const texts[4],
                    const char *combine) {
    int n = 0;
    for (; n < 4 && texts[n] != NULL; n++) {
        if (!CHECK_OK(kac_reward_spec_parse(&specs[n], texts[n]))) return 0;
        list[n] = &specs[n];
    }
    return CHECK_OK(kac_mix_open(m, list, n, combine)) ? n : 0;
}

/* Central differences; away from kinks they agree with the gradient to their own error. */
static void check_gradient(const kac_mix *m, const double *r, int n, const char *name) {
    double grad[4], at[4];
    if (!CHECK_OK(kac_mix_grad(m, grad, r))) return;
    for (int i = 0; i < n; i++) {
        const double h = 1e-5;
        double up, down;
        memcpy(at, r, (size_t)n * sizeof *r);
        at[i] = r[i] + h;
        CHECK_OK(kac_mix_total(m, &up, NULL, at));
        at[i] = r[i] - h;
        CHECK_OK(kac_mix_total(m, &down, NULL, at));
        if (!CHECK_NEAR(grad[i], (up - down) / (2 * h), 1e-6 * fmax(1, fabs(grad[i])))) printf("  %s, %d\n", name, i);
    }
}

static const char groups[] = "{\"ann\": {\"a\": 2, \"b\": 1}, \"ben\": {\"b\": -1, \"3\": 4, \"share\": 3}}";

static void test_combinations(void) {
    temp_write("groups.json", groups, sizeof groups - 1);
    char worst[600], mean[600];
    snprintf(worst, sizeof worst, "worst-group=%s", temp_path("groups.json"));
    snprintf(mean, sizeof mean, "mean-group=%s", temp_path("groups.json"));
    const double std3 = sqrt(14.0 / 9); /* of 1, 2, 4: mean 7/3, squares 16/9 1/9 25/9, their mean 14/9 */
    const mix_case cases[] = {
        {"sum", {"a", "b:2", "c:-1"}, {1, 2, 4}, 1, NAN},
        {NULL, {"a:0.5"}, {3}, 1.5, NAN},
        {"mean", {"a", "b", "c"}, {1, 2, 4}, 7.0 / 3, std3},
        {"min", {"a:3", "b", "c:0.25"}, {1, 2, 4}, 1, sqrt(2.0 / 3)},
        {"max", {"a", "b:3", "c"}, {1, 2, 4}, 6, sqrt((49 + 64 + 1) / 27.0)},
        {"mean-std", {"a", "b", "c"}, {1, 2, 4}, 7.0 / 3 - std3, std3},
        {"mean-std=2", {"a", "b", "c"}, {1, 2, 4}, 7.0 / 3 - 2 * std3, std3},
        {"mean-var=0.5", {"a", "b", "c"}, {1, 2, 4}, 7.0 / 3 - 7.0 / 9, std3},
        {"robust=0.7", {"a", "b", "c"}, {1, 2, 4}, 0.7 * 7 / 3 + 0.3, std3},
        {"shrink=3/1", {"a", "b", "c"}, {1, 2, 4}, 1 + 4.0 / 3 / (1 + 14.0 / 3), std3},
        {"shrink=3", {"a", "b", "c"}, {1, 2, 4}, 7.0 / 3 / (1 + 14.0 / 3), std3},
        {"softmin=2", {"a", "b", "c"}, {1, 2, 4}, -2 * log((exp(-0.5) + exp(-1.0) + exp(-2.0)) / 3), std3},
        {"product", {"a", "b:2", "c"}, {1, 2, 4}, log(16), NAN},
        {"geometric", {"a", "b:2", "c"}, {1, 2, 4}, 2, NAN},
        {worst, {"a", "b", "c"}, {1, 2, 4}, 4, 5}, /* ann 4, ben 14 */
        {mean, {"a", "b", "c"}, {1, 2, 4}, 0.25 * 4 + 0.75 * 14, 5},
        {"sum", {"a,target=0.3:2"}, {1}, -1.4, NAN},
        {"sum", {"a,target=3:2"}, {1}, -4, NAN},
        {"sum", {"a,hinge=2", "b,hinge=1.5"}, {1, 2}, -1, NAN},
        {"sum", {"a,clamp=0/1.5", "b,clamp=0/1.5", "c,clamp=5/6"}, {1, 2, 4}, 7.5, NAN},
        {"sum", {"a,sigmoid=1/2"}, {3}, 1 / (1 + exp(-1)), NAN},
        {"sum", {"a,sigmoid=0"}, {-800}, 0, NAN},
        {"sum", {"a,tanh=1/2"}, {2}, tanh(0.5), NAN},
        {"sum", {"a,log", "b,exp"}, {2, 3}, log(2) + exp(3), NAN},
        {"sum", {"a,z=3/2:5"}, {4}, 2.5, NAN},
        {"sum", {"a,log,target=1,tanh:-3"}, {5}, -3 * tanh(-(log(5) - 1)), NAN},
        {"product", {"a,sigmoid=0", "b,exp:0.5"}, {2, -3}, -log(1 + exp(-2)) - 1.5, NAN},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const mix_case *c = &cases[i];
        kac_reward_spec specs[4] = {0};
        const kac_reward_spec *list[4];
        kac_mix *m = NULL;
        double total, uncertainty;
        const int n = open_mix(&m, specs, list, c->texts, c->combine);
        if (n > 0 && CHECK_OK(kac_mix_total(m, &total, &uncertainty, c->r))) {
            if (!CHECK_NEAR(total, c->total, 1e-12 * fmax(1, fabs(c->total))))
                printf("  %s of %s …\n", c->combine == NULL ? "" : c->combine, c->texts[0]);
            CHECK(isnan(c->uncertainty) == !kac_mix_has_uncertainty(m));
            CHECK(isnan(c->uncertainty) ? isnan(uncertainty) : fabs(uncertainty - c->uncertainty) < 1e-12);
            check_gradient(m, c->r, n, c->combine == NULL ? "" : c->combine);
        }
        kac_mix_close(m);
        for (int k = 0; k < 4; k++) kac_reward_spec_free(&specs[k]);
    }
}

static void refuse(const char *combine, const char *text_a, const char *text_b, kac_status status, const char *why) {
    kac_reward_spec specs[2] = {0};
    const kac_reward_spec *list[2] = {&specs[0], &specs[1]};
    kac_mix *m = NULL;
    if (!CHECK_OK(kac_reward_spec_parse(&specs[0], text_a)) || !CHECK_OK(kac_reward_spec_parse(&specs[1], text_b)))
        return;
    CHECK_FAILS(kac_mix_open(&m, list, 2, combine), status, why);
    kac_reward_spec_free(&specs[0]), kac_reward_spec_free(&specs[1]);
}

static void refuse_groups(const char *json, const char *why) {
    char combine[600];
    temp_write("bad.json", json, strlen(json));
    snprintf(combine, sizeof combine, "worst-group=%s", temp_path("bad.json"));
    refuse(combine, "clip=x", "jpeg", KAC_E_FORMAT, why);
}

static void test_bad_combinations(void) {
    refuse("som", "a", "b", KAC_E_USAGE, "did you mean \"sum\"");
    refuse("", "a", "b", KAC_E_USAGE, "choose one of sum, mean");
    refuse("sum=1", "a", "b", KAC_E_USAGE, "write sum");
    refuse("softmin", "a", "b", KAC_E_USAGE, "softmin=T");
    refuse("softmin=0", "a", "b", KAC_E_USAGE, "T > 0");
    refuse("robust=2", "a", "b", KAC_E_USAGE, "from 0 to 1");
    refuse("mean-std=x", "a", "b", KAC_E_USAGE, "mean-std=K");
    refuse("shrink=1/2/3", "a", "b", KAC_E_USAGE, "shrink=K");
    refuse("product", "a", "b:-1", KAC_E_USAGE, "exponents");
    refuse("worst-group", "a", "b", KAC_E_USAGE, "wants a file");
    refuse("worst-group=/nowhere.json", "a", "b", KAC_E_IO, "/nowhere.json");
    refuse_groups("[]", "object");
    refuse_groups("{}", "names no group");
    refuse_groups("{\"ann\": 1}", "group \"ann\" must be an object");
    refuse_groups("{\"ann\": {}}", "group \"ann\" must be an object");
    refuse_groups("{\"ann\": {\"clp\": 1}}", "did you mean \"clip\"");
    refuse_groups("{\"ann\": {\"3\": 1}}", "no --reward is called \"3\"");
    refuse_groups("{\"ann\": {\"clip\": \"much\"}}", "must be a number");
    refuse_groups("{\"ann\": {\"clip\": 1, \"share\": 0}}", "positive");
    refuse_groups("{\"ann\": {\"clip\": 1", "JSON");
}

static void test_bad_values(void) {
    const char *const texts[4] = {"a", "b,log"};
    kac_reward_spec specs[4] = {0};
    const kac_reward_spec *list[4];
    kac_mix *m = NULL;
    double total;
    if (open_mix(&m, specs, list, texts, "product") == 2) {
        CHECK_FAILS(kac_mix_total(m, &total, NULL, (double[]){NAN, 3}), KAC_E_NONFINITE, "reward a is not a finite");
        CHECK_FAILS(kac_mix_total(m, &total, NULL, (double[]){1, INFINITY}), KAC_E_NONFINITE, "reward b");
        CHECK_FAILS(kac_mix_total(m, &total, NULL, (double[]){1, 0}), KAC_E_NONFINITE, "b: log of the reward 0");
        CHECK_FAILS(kac_mix_total(m, &total, NULL, (double[]){-2, 3}), KAC_E_NONFINITE, "a is -2; --combine product");
    }
    kac_mix_close(m);
    kac_reward_spec_free(&specs[0]), kac_reward_spec_free(&specs[1]);
}

/* Observed in two halves, with the state carried over, a running z is that of all. */
static void test_running(void) {
    const char *const texts[4] = {"a,log,z", "b"};
    const double values[][2] = {{1, 0}, {exp(1), 0}, {exp(2), 1}, {exp(5), 0}};
    kac_reward_spec specs[4] = {0};
    const kac_reward_spec *list[4];
    kac_mix *m = NULL, *again = NULL;
    double total;
    if (open_mix(&m, specs, list, texts, "sum") != 2) return;
    CHECK_OK(kac_mix_total(m, &total, NULL, values[2]));
    CHECK_NEAR(total, 1, 1e-12); /* nothing seen yet: every reward is the mean */
    CHECK_OK(kac_mix_observe(m, values[0], 2));
    CHECK_OK(kac_mix_open(&again, list, 2, NULL));
    size_t n, n_again;
    const void *state = kac_mix_state(m, &n);
    void *to = kac_mix_state(again, &n_again);
    if (CHECK(state != NULL && to != NULL && n == n_again && n > 0)) memcpy(to, state, n);
    CHECK_OK(kac_mix_observe(again, values[2], 2));
    CHECK_OK(kac_mix_total(again, &total, NULL, values[3])); /* logs 0 1 2 5: mean 2, variance 14/4 */
    CHECK_NEAR(total, 3 / sqrt(3.5), 1e-12);
    check_gradient(again, values[3], 2, "running z");
    kac_mix_close(m), kac_mix_close(again);
    CHECK_OK(kac_mix_open(&m, list + 1, 1, "mean"));
    CHECK(kac_mix_state(m, &n) == NULL && n == 0);
    kac_mix_close(m);
    kac_reward_spec_free(&specs[0]), kac_reward_spec_free(&specs[1]);
}

/* Every allocation in turn fails: a status each time, and nothing lost (the sanitizer's to see). */
static void test_memory(void) {
    temp_write("groups.json", groups, sizeof groups - 1);
    char combine[600];
    snprintf(combine, sizeof combine, "worst-group=%s", temp_path("groups.json"));
    const char *const texts[] = {"a=x:2,z", "b", "c"};
    bool done = false;
    for (long n = 1; !done && n < 200; n++) {
        kac_reward_spec specs[3] = {0};
        const kac_reward_spec *list[3] = {&specs[0], &specs[1], &specs[2]};
        kac_mix *m = NULL;
        kac_alloc_fail_after(n);
        kac_status s = KAC_OK;
        for (int i = 0; i < 3 && s == KAC_OK; i++) s = kac_reward_spec_parse(&specs[i], texts[i]);
        if (s == KAC_OK) s = kac_mix_open(&m, list, 3, combine);
        kac_alloc_fail_after(0);
        done = s == KAC_OK;
        CHECK(done || s == KAC_E_MEMORY);
        kac_mix_close(m);
        for (int i = 0; i < 3; i++) kac_reward_spec_free(&specs[i]);
    }
    CHECK(done);
}

int main(void) {
    test_texts();
    test_bad_texts();
    test_combinations();
    test_bad_combinations();
    test_bad_values();
    test_running();
    test_memory();
    return check_done();
}
