#include "samplers/resample.h"
#include "base/base.h"
#include <math.h>
#include <string.h>

/* k·W that is an integer up to rounding counts as one. */
static const double slack = 1e-10;

kac_scheme kac_scheme_find(const char *name) {
    static const char *const names[] = {"multinomial", "stratified", "systematic", "residual", "ssp"};
    for (int i = 0; i < KAC_COUNT_OF(names); i++)
        if (strcmp(names[i], name) == 0) return (kac_scheme)i;
    KAC_ASSERT(!"a resampling scheme of KAC_RESAMPLE_CHOICES");
    return KAC_RESAMPLE_SYSTEMATIC;
}

/* sums[i] = W_0 + … + W_i over their total: exactly 1 from the last particle with weight on, so that no rounding can choose one
 * without weight. sums may be weights. */
static void cumulate(double *sums, const double *weights, int k) {
    double sum = 0.0;
    for (int i = 0; i < k; i++) sums[i] = sum += weights[i];
    for (int i = 0; i < k; i++) sums[i] /= sum;
}

/* n independent draws. */
static void count_multinomial(int *counts, const double *sums, int k, int n, kac_key key, uint32_t group) {
    for (int j = 0; j < n; j++) {
        const double u = kac_rng_uniform(key, group, j);
        int low = 0, high = k - 1; /* the first i with sums[i] > u */
        while (low < high) {
            const int middle = (low + high) / 2;
            if (sums[middle] > u)
                high = middle;
            else
                low = middle + 1;
        }
        counts[low]++;
    }
}

/* One draw in each stratum [j/k, (j+1)/k): its own uniform, or the same one for all (systematic). */
static void count_strata(int *counts, const double *sums, int k, bool same, kac_key key, uint32_t group) {
    const double common = kac_rng_uniform(key, group, 0);
    int i = 0;
    for (int j = 0; j < k; j++) {
        const double u = same ? common : kac_rng_uniform(key, group, j), position = (j + u) / k;
        while (i < k - 1 && sums[i] <= position) i++;
        counts[i]++;
    }
}

static void count_residual(int *counts, double *rest, const double *weights, int k, kac_key key, uint32_t group) {
    int n = k;
    double total = 0.0;
    for (int i = 0; i < k; i++) {
        const double share = k * weights[i];
        counts[i] = (int)floor(share + slack);
        rest[i] = fmax(share - counts[i], 0.0);
        total += rest[i];
        n -= counts[i];
    }
    if (n <= 0 || total <= 0.0) return;
    cumulate(rest, rest, k);
    count_multinomial(counts, rest, k, n, key, group);
}

/* Two fractional shares at a time: one takes from the other until one of them is whole, with probabilities that keep both means. */
static void count_ssp(int *counts, double *rest, const double *weights, int k, kac_key key, uint32_t group) {
    for (int i = 0; i < k; i++) {
        const double share = k * weights[i];
        counts[i] = (int)floor(share + slack);
        rest[i] = fmax(share - counts[i], 0.0);
    }
    int up = 0, down = 1;
    for (int next = 2; next <= k; next++) {
        double give = fmin(rest[down], 1.0 - rest[up]);
        const double take = fmin(rest[up], 1.0 - rest[down]);
        if (kac_rng_uniform(key, group, next - 2) * (give + take) < give) { /* with this probability `down` grows */
            const int swap = up;
            up = down;
            down = swap;
            give = take;
        }
        if (rest[down] < 1.0 - rest[up] - slack) { /* a tie always takes the other branch, however it was rounded */
            rest[up] += give;
            down = next;
        } else {
            rest[down] -= give;
            counts[up]++;
            up = next;
        }
    }
}

/* Rounding in the schemes above may leave one copy too few or too many: it goes where the share is farthest off. */
static void repair(int *counts, const double *weights, int k) {
    int sum = 0;
    for (int i = 0; i < k; i++) sum += counts[i];
    for (; sum != k; sum += sum < k ? 1 : -1) {
        const int sign = sum < k ? 1 : -1;
        int best = -1;
        for (int i = 0; i < k; i++) {
            if (sign > 0 ? weights[i] <= 0.0 : counts[i] == 0) continue;
            if (best < 0 || sign * (k * weights[i] - counts[i]) > sign * (k * weights[best] - counts[best])) best = i;
        }
        counts[best] += sign;
    }
}

static void arrange(int *ancestors, const int *counts, int k) {
    int source = 0, spare = KAC_MAX(counts[0] - 1, 0);
    for (int i = 0; i < k; i++) {
        if (counts[i] > 0) {
            ancestors[i] = i;
            continue;
        }
        while (spare == 0) {
            source++;
            spare = KAC_MAX(counts[source] - 1, 0);
        }
        ancestors[i] = source;
        spare--;
    }
}

void kac_draw_ancestors(kac_scheme scheme, const double *weights, int k, kac_key key, uint32_t group, int *ancestors,
                        double *scratch, int *counts) {
    memset(counts, 0, (size_t)k * sizeof *counts);
    switch (scheme) {
    case KAC_RESAMPLE_MULTINOMIAL:
        cumulate(scratch, weights, k);
        count_multinomial(counts, scratch, k, k, key, group);
        break;
    case KAC_RESAMPLE_STRATIFIED:
    case KAC_RESAMPLE_SYSTEMATIC:
        cumulate(scratch, weights, k);
        count_strata(counts, scratch, k, scheme == KAC_RESAMPLE_SYSTEMATIC, key, group);
        break;
    case KAC_RESAMPLE_RESIDUAL:
        count_residual(counts, scratch, weights, k, key, group);
        break;
    case KAC_RESAMPLE_SSP:
        count_ssp(counts, scratch, weights, k, key, group);
        break;
    }
    repair(counts, weights, k);
    arrange(ancestors, counts, k);
}
