/* One table → values, ranges, messages with the nearest name. */
#include "base/base.h"
#include "check.h"
#include <kac/options.h>

static const kac_option_spec table[] = {
    {"lambda", 0, KAC_OPT_REAL, "10", -1e6, 1e6, NULL, "X", "reward multiplier", false},
    {"potential", 0, KAC_OPT_CHOICE, "difference", 0, 0, "difference|max|sum|reward", NULL, "potential", false},
    {"score-steps", 0, KAC_OPT_LIST, NULL, 0, 999, NULL, "LIST", "steps", false},
    {"particles", 0, KAC_OPT_INT, "4", 1, 4096, NULL, "N", "particles", false},
    {NULL, 0, KAC_OPT_BOOL, NULL, 0, 0, NULL, NULL, NULL, false}};

static const kac_option_spec more[] = {{"reward", 0, KAC_OPT_TEXT, NULL, 0, 0, NULL, "NAME", "reward", true},
                                       {"prompt", 'p', KAC_OPT_TEXT, NULL, 0, 0, NULL, "TEXT", "prompt", false},
                                       {"resume", 0, KAC_OPT_BOOL, "false", 0, 0, NULL, NULL, "go on", false},
                                       {"seed", 's', KAC_OPT_INT, "0", 0, 1e18, NULL, "N", "seed", false},
                                       {NULL, 0, KAC_OPT_BOOL, NULL, 0, 0, NULL, NULL, NULL, false}};

static void test_values(kac_options *o) {
    CHECK_NEAR(kac_options_real(o, "lambda"), 10, 0);
    CHECK(kac_options_int(o, "particles") == 4 && !kac_options_given(o, "particles"));
    CHECK(kac_options_text(o, "prompt") == NULL && kac_options_count(o, "score-steps") == 0);
    CHECK_OK(kac_options_set(o, "lambda", "-2.5"));
    CHECK_OK(kac_options_set(o, "score-steps", "3,1,999"));
    CHECK_OK(kac_options_set(o, "reward", "clip=a:1"));
    CHECK_OK(kac_options_set(o, "reward", "jpeg:-1"));
    CHECK_OK(kac_options_set(o, "resume", NULL));
    CHECK_NEAR(kac_options_real(o, "lambda"), -2.5, 0);
    CHECK(kac_options_given(o, "lambda") && !kac_options_given(o, "seed"));
    CHECK(kac_options_count(o, "score-steps") == 3 && kac_options_int_at(o, "score-steps", 2) == 999);
    CHECK_OK(kac_options_set(o, "score-steps", "7"));
    CHECK(kac_options_count(o, "score-steps") == 1 && kac_options_int_at(o, "score-steps", 0) == 7);
    CHECK(kac_options_count(o, "reward") == 2);
    CHECK_TEXT(kac_options_text_at(o, "reward", 1), "jpeg:-1");
    CHECK_TEXT(kac_options_as_text(o, "reward"), "clip=a:1,jpeg:-1");
    CHECK(kac_options_bool(o, "resume"));
    CHECK_OK(kac_options_set(o, "no-resume", NULL));
    CHECK(!kac_options_bool(o, "resume"));
    CHECK_TEXT(kac_options_as_text(o, "resume"), "false");
    CHECK_TEXT(kac_options_as_text(o, "potential"), "difference");
    CHECK_OK(kac_options_set(o, "prompt", ""));
    CHECK_TEXT(kac_options_text(o, "prompt"), "");
}

static void test_refused(kac_options *o) {
    CHECK_FAILS(kac_options_set(o, "particels", "4"), KAC_E_USAGE, "did you mean --particles?");
    CHECK_FAILS(kac_options_set(o, "zzzzzzzz", "4"), KAC_E_USAGE, "unknown option --zzzzzzzz");
    CHECK_FAILS(kac_options_set(o, "particles", "0"), KAC_E_USAGE, "between 1 and 4096");
    CHECK_FAILS(kac_options_set(o, "particles", "1000000000"), KAC_E_USAGE, "between 1 and 4096");
    CHECK_FAILS(kac_options_set(o, "particles", "99999999999999999999"), KAC_E_USAGE, "between 1 and 4096");
    CHECK_FAILS(kac_options_set(o, "particles", "4x"), KAC_E_USAGE, "whole number");
    CHECK_FAILS(kac_options_set(o, "particles", ""), KAC_E_USAGE, "whole number");
    CHECK_FAILS(kac_options_set(o, "particles", NULL), KAC_E_USAGE, "wants a value");
    CHECK_FAILS(kac_options_set(o, "lambda", "nan"), KAC_E_USAGE, "number");
    CHECK_FAILS(kac_options_set(o, "lambda", "inf"), KAC_E_USAGE, "number");
    CHECK_FAILS(kac_options_set(o, "potential", "differense"), KAC_E_USAGE, "did you mean difference?");
    CHECK_FAILS(kac_options_set(o, "score-steps", "1,,2"), KAC_E_USAGE, "whole number");
    CHECK_FAILS(kac_options_set(o, "score-steps", "1,1000"), KAC_E_USAGE, "between 0 and 999");
    CHECK_FAILS(kac_options_set(o, "resume", "maybe"), KAC_E_USAGE, "true or false");
    CHECK_FAILS(kac_options_set(o, "seed", "-1"), KAC_E_USAGE, "0 or more");
    /* a refused value leaves the old one */
    CHECK(kac_options_int(o, "particles") == 4 && kac_options_int_at(o, "score-steps", 0) == 7);
}

int main(void) {
    kac_options *o = kac_options_create(table);
    if (CHECK(o != NULL)) {
        CHECK_OK(kac_options_add(o, more));
        CHECK_TEXT(kac_options_spec(o, 0)->name, "lambda");
        CHECK_TEXT(kac_options_spec(o, 7)->name, "seed");
        CHECK(kac_options_spec(o, 8) == NULL && kac_options_has(o, "seed") && !kac_options_has(o, "sed"));
        test_values(o);
        test_refused(o);
        kac_options_destroy(o);
    }
    static const char *const names[] = {"none", "best-of-n", "fk", NULL};
    CHECK_TEXT(kac_nearest("bestofn", names), "best-of-n");
    CHECK_TEXT(kac_nearest("fq", names), "fk");
    CHECK(kac_nearest("annealing", names) == NULL);
    return check_done();
}
