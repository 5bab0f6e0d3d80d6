/* Checks for tests: a failed check prints where and what and counts; the test goes on. main returns check_done(). */
#ifndef KAC_TESTS_CHECK_H
#define KAC_TESTS_CHECK_H

#include <kac/status.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static int check_failures_, check_count_;

#define CHECK(cond)                                                                                                    \
    (check_count_++, (cond) ? 1 : (check_failures_++, printf("%s:%d: failed: %s\n", __FILE__, __LINE__, #cond), 0))
#define CHECK_OK(expr) check_ok_((expr), #expr, __FILE__, __LINE__)
/* Fails with `status`, and the message contains `text` (NULL: any). */
#define CHECK_FAILS(expr, status, text) check_fails_((expr), (status), (text), #expr, __FILE__, __LINE__)
#define CHECK_NEAR(a, b, tolerance) check_near_((a), (b), (tolerance), #a, #b, __FILE__, __LINE__)
#define CHECK_TEXT(a, b)                                                                                               \
    (check_count_++,                                                                                                   \
     strcmp((a), (b)) == 0                                                                                             \
         ? 1                                                                                                           \
         : (check_failures_++, printf("%s:%d: \"%s\" is not \"%s\"\n", __FILE__, __LINE__, (a), (b)), 0))

static inline int check_ok_(kac_status s, const char *expr, const char *file, int line) {
    check_count_++;
    if (s == KAC_OK) return 1;
    check_failures_++;
    printf("%s:%d: %s: %s: %s\n", file, line, expr, kac_status_text(s), kac_error());
    return 0;
}

static inline int check_fails_(kac_status s, kac_status want, const char *text, const char *expr, const char *file,
                               int line) {
    check_count_++;
    if (s == want && (text == NULL || strstr(kac_error(), text) != NULL)) return 1;
    check_failures_++;
    printf("%s:%d: %s: got %s (%s), wanted %s with \"%s\"\n", file, line, expr, kac_status_text(s), kac_error(),
           kac_status_text(want), text == NULL ? "" : text);
    return 0;
}

static inline int check_near_(double a, double b, double tolerance, const char *text_a, const char *text_b,
                              const char *file, int line) {
    check_count_++;
    if (fabs(a - b) <= tolerance) return 1;
    check_failures_++;
    printf("%s:%d: %s = %.10g, %s = %.10g, difference %.3g > %.3g\n", file, line, text_a, a, text_b, b, fabs(a - b),
           tolerance);
    return 0;
}

static inline int check_done(void) {
    printf("%d checks, %d failed\n", check_count_, check_failures_);
    return check_failures_ != 0;
}

/* Ends the test as skipped. */
#define CHECK_SKIP(...) (printf("SKIPPED: "), printf(__VA_ARGS__), printf("\n"), 77)

#endif
