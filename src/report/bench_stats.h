/* What the cells of a bench say together: means with 95 % bands, speed-ups, win rates, over-optimisation.
 *
 * Bands are percentile bootstrap intervals over prompts: a draw takes prompts with replacement, each with all its seeds (cells of one
 * prompt are alike, so seeds alone would make bands too narrow); with a single prompt it draws seeds. The draws are the same for every
 * method, budget and quantity, so that differences and ratios keep what the methods share. Fixed seed: the same numbers each time. */
#ifndef KAC_REPORT_BENCH_STATS_H
#define KAC_REPORT_BENCH_STATS_H

#include "bench_data.h"

enum { KAC_BENCH_DRAWS = 1000 };

/* lo, hi NAN: no band (fewer than two prompts or seeds). */
typedef struct kac_bench_mean {
    double mean, lo, hi; /* NAN: nothing finished */
    int n;               /* cells in it */
} kac_bench_mean;

/* How often each unit (prompt, or seed) is in each draw. */
typedef struct kac_bench_resamples {
    const kac_bench_data *d;
    int category; /* −1: all prompts */
    int n_units;
    bool of_seeds;
    uint16_t *times; /* [KAC_BENCH_DRAWS, n_units] */
} kac_bench_resamples;

kac_status kac_bench_resamples_init(kac_bench_resamples *r, const kac_bench_data *d, int category);
void kac_bench_resamples_free(kac_bench_resamples *r);

/* One quantity at every method and budget. */
typedef struct kac_bench_curves {
    const kac_bench_data *d;
    int quantity;
    kac_bench_mean *at; /* [n_methods, n_budgets] */
    double *draws;      /* [n_methods, n_budgets, KAC_BENCH_DRAWS]; NAN: nothing finished in the draw */
} kac_bench_curves;

kac_status kac_bench_curves_init(kac_bench_curves *c, const kac_bench_resamples *r, int quantity);
void kac_bench_curves_free(kac_bench_curves *c);
const kac_bench_mean *kac_bench_curve_at(const kac_bench_curves *c, int method, int budget);
bool kac_bench_curves_empty(const kac_bench_curves *c);

/* The mean over all categories' means (as GenEval counts), instead of that over all prompts; bands resample within categories. Curves that
 * it fills the caller frees. */
kac_status kac_bench_overall_init(kac_bench_curves *c, const kac_bench_data *d, int quantity);

/* x at which a curve of n points, linear between them in log x, first reaches y; x rises. NAN: never. Points with a value that is not
 * finite are passed over. */
double kac_bench_reach(const double *x, const double *y, int n, double target);

/* Speed-up: cost of the best baseline at its largest budget, over the cost at which a method reaches that value. */
typedef struct kac_bench_speed {
    double cost;          /* at which it is reached; NAN: never, then the speed-up is below max_cost's */
    double ratio, lo, hi; /* 0: never reached (in the band: in that share of the draws) */
    bool at_once;         /* reached at its smallest budget already: a lower bound */
    double max_cost;      /* the largest that the method was run with */
} kac_bench_speed;

/* Where the best baseline stands. */
typedef struct kac_bench_target {
    int method; /* −1: no baseline has finished cells */
    double value, cost;
} kac_bench_target;

/* out [n_methods]. `value` and `cost` are curves of the same resamples. */
kac_status kac_bench_speeds(kac_bench_speed *out, kac_bench_target *target, const kac_bench_curves *value,
                            const kac_bench_curves *cost);

/* How often method a is above method b at one budget, pairs of the same prompt and seed, a tie counts half. */
kac_bench_mean kac_bench_wins(const kac_bench_resamples *r, int quantity, int a, int b, int budget);

/* Over-optimisation: the first budget from which on the judge stays below its best earlier value by more than that one's band reaches down,
 * while the reward is above what it was there. −1: none. *best: the budget of the judge's best value. */
int kac_bench_overdone(int *best, const kac_bench_curves *reward, const kac_bench_curves *judge, int method);

/* [0.025, 0.975] of the finite ones among n values, sorted in place; NAN when there are none. */
void kac_bench_band(double *lo, double *hi, double *values, int n);

#endif
