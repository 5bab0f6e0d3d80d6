/* Counts of every resampling scheme: their law, their bounds, and where survivors stay. */
#include "base/base.h"
#include "check.h"
#include "samplers/resample.h"

enum { MAX_K = 64 };

static const char *const names[] = {"multinomial", "stratified", "systematic", "residual", "ssp"};

static void draw(kac_scheme scheme, const double *w, int k, uint64_t seed, int *ancestors, int *copies) {
    double scratch[MAX_K];
    int counts[MAX_K];
    kac_draw_ancestors(scheme, w, k, (kac_key){seed, KAC_PURPOSE_RESAMPLE, 3}, 0, ancestors, scratch, counts);
    memset(copies, 0, (size_t)k * sizeof *copies);
    for (int i = 0; i < k; i++) {
        CHECK(ancestors[i] >= 0 && ancestors[i] < k);
        copies[ancestors[i]]++;
    }
    /* whoever survives keeps its place; the others' places fill in rising order */
    int last = -1;
    for (int i = 0; i < k; i++) {
        if (copies[i] > 0) CHECK(ancestors[i] == i);
        if (copies[i] == 0) {
            CHECK(ancestors[i] >= last);
            last = ancestors[i];
        }
    }
}

/* Over many seeds: E counts = k W by chi-square, and each scheme's own bounds every time. Returns the variance of the counts. */
static double check_law(kac_scheme scheme, const double *w, int k, int n_seeds) {
    double sum[MAX_K] = {0}, squares = 0;
    for (int seed = 0; seed < n_seeds; seed++) {
        int ancestors[MAX_K], copies[MAX_K];
        draw(scheme, w, k, (uint64_t)seed, ancestors, copies);
        for (int i = 0; i < k; i++) {
            const double share = k * w[i];
            sum[i] += copies[i];
            squares += (copies[i] - share) * (copies[i] - share);
            if (w[i] == 0.0) CHECK(copies[i] == 0);
            if (scheme == KAC_RESAMPLE_SYSTEMATIC || scheme == KAC_RESAMPLE_SSP)
                CHECK(copies[i] >= floor(share - 1e-9) && copies[i] <= ceil(share + 1e-9));
            if (scheme == KAC_RESAMPLE_RESIDUAL) CHECK(copies[i] >= floor(share - 1e-9));
        }
    }
    /* Counts of the low-variance schemes vary less than multinomial ones, so this is conservative: 99.99 % of chi-square. */
    double chi2 = 0;
    int freedom = -1;
    for (int i = 0; i < k; i++) {
        if (w[i] == 0.0) continue;
        const double want = n_seeds * k * w[i];
        chi2 += (sum[i] - want) * (sum[i] - want) / want;
        freedom++;
    }
    const double limit = freedom + 4.0 * sqrt(2.0 * freedom) + 8.0;
    if (!CHECK(chi2 < limit)) printf("  %s: chi2 %.1f with %d degrees of freedom\n", names[scheme], chi2, freedom);
    /* and the sharper test of each mean against its own spread, at most that of a Bernoulli remainder or a binomial */
    for (int i = 0; i < k; i++) {
        const double share = k * w[i], rest = share - floor(share);
        const double variance =
            scheme == KAC_RESAMPLE_SYSTEMATIC || scheme == KAC_RESAMPLE_SSP ? rest * (1 - rest) : share * (1 - w[i]);
        if (!CHECK_NEAR(sum[i] / n_seeds, share, 5.0 * sqrt(variance / n_seeds) + 1e-9))
            printf("  %s, particle %d\n", names[scheme], i);
    }
    return squares / n_seeds;
}

static void test_laws(void) {
    double a[8] = {0.3, 0.01, 0, 0.2, 0.09, 0.25, 0.15, 0}, b[MAX_K], c[4] = {0.25, 0.5, 0.125, 0.125}, total = 0;
    for (int i = 0; i < 37; i++) total += b[i] = i % 5 == 0 ? 0.0 : exp(3.0 * sin(i * 12.9898));
    for (int i = 0; i < 37; i++) b[i] /= total;
    for (int s = 0; s < KAC_COUNT_OF(names); s++) {
        CHECK(kac_scheme_find(names[s]) == (kac_scheme)s);
        check_law((kac_scheme)s, a, 8, 20000);
        check_law((kac_scheme)s, b, 37, 4000);
        check_law((kac_scheme)s, c, 4, 4000); /* whole shares */
    }
    const double multinomial = check_law(KAC_RESAMPLE_MULTINOMIAL, b, 37, 2000);
    for (int s = KAC_RESAMPLE_STRATIFIED; s <= KAC_RESAMPLE_SSP; s++)
        CHECK(check_law((kac_scheme)s, b, 37, 2000) < multinomial);
}

static void test_guards(void) {
    int ancestors[MAX_K], copies[MAX_K];
    double one_hot[MAX_K] = {0}, equal[MAX_K], tiny[MAX_K];
    one_hot[5] = 1.0;
    for (int s = 0; s < KAC_COUNT_OF(names); s++) {
        draw((kac_scheme)s, one_hot, 16, 1, ancestors, copies);
        CHECK(copies[5] == 16);
        const double certain = 1.0;
        draw((kac_scheme)s, &certain, 1, 1, ancestors, copies);
        CHECK(ancestors[0] == 0);
        for (int k = 2; k <= MAX_K; k++) {
            for (int i = 0; i < k; i++) {
                equal[i] = 1.0 / k; /* k · (1/k) is not always 1 */
                tiny[i] = i == k - 1 ? 1.0 - (k - 1) * 1e-17 : 1e-17;
            }
            draw((kac_scheme)s, equal, k, (uint64_t)k, ancestors, copies);
            for (int i = 0; s != KAC_RESAMPLE_MULTINOMIAL && i < k; i++) CHECK(ancestors[i] == i);
            draw((kac_scheme)s, tiny, k, (uint64_t)k, ancestors, copies);
            CHECK(copies[k - 1] == k);
        }
    }
    /* the same key gives the same ancestors, another group others */
    double w[32], scratch[32], total = 0;
    int first[32], second[32], counts[32], differ = 0;
    for (int i = 0; i < 32; i++) total += w[i] = 1.0 + i % 7;
    for (int i = 0; i < 32; i++) w[i] /= total;
    const kac_key key = {9, KAC_PURPOSE_RESAMPLE, 0};
    kac_draw_ancestors(KAC_RESAMPLE_MULTINOMIAL, w, 32, key, 0, first, scratch, counts);
    kac_draw_ancestors(KAC_RESAMPLE_MULTINOMIAL, w, 32, key, 0, second, scratch, counts);
    CHECK(memcmp(first, second, sizeof first) == 0);
    kac_draw_ancestors(KAC_RESAMPLE_MULTINOMIAL, w, 32, key, 1, second, scratch, counts);
    for (int i = 0; i < 32; i++) differ += first[i] != second[i];
    CHECK(differ > 0);
}

int main(void) {
    test_laws();
    test_guards();
    return check_done();
}
