/* The parts of a bench's page. */
#ifndef KAC_REPORT_PAGE_BENCH_H
#define KAC_REPORT_PAGE_BENCH_H

#include "bench_report.h"
#include "bench_stats.h"
#include "chart.h"

typedef struct kac_bench_page {
    kac_text *t;
    const kac_bench_data *d;
    kac_bench_report_info *info;
    bool write;                                        /* files beside the page are written too */
    kac_bench_resamples all;                           /* over all prompts */
    kac_bench_curves curves[KAC_BENCH_MAX_QUANTITIES]; /* [d->n_quantities] */
} kac_bench_page;

/* Curves of every quantity. The caller ends with close, also on failure. */
kac_status kac_bench_page_open(kac_bench_page *p, kac_text *t, const kac_bench_data *d, kac_bench_report_info *info);
void kac_bench_page_close(kac_bench_page *p);

/* In the order of the page. */
void kac_page_bench_head(kac_bench_page *p);
kac_status kac_page_bench_headline(kac_bench_page *p);
kac_status kac_page_bench_curves(kac_bench_page *p);
kac_status kac_page_bench_speed(kac_bench_page *p);
kac_status kac_page_bench_overdone(kac_bench_page *p);
kac_status kac_page_bench_wins(kac_bench_page *p);
kac_status kac_page_bench_categories(kac_bench_page *p);
kac_status kac_page_bench_costs(kac_bench_page *p);
kac_status kac_page_bench_trees(kac_bench_page *p);
kac_status kac_page_bench_walls(kac_bench_page *p); /* fills the page up to its size */
void kac_page_bench_facts(kac_bench_page *p);

/* Hands one quantity against one cost (KAC_BENCH_NFE, _SECONDS, _FLOPS), a line for each method, to `use`. */
kac_status kac_bench_chart(const kac_bench_page *p, int quantity, int cost,
                           kac_status (*use)(void *self, const kac_chart *c), void *self);

/* "reward", "mean reward", "judge NAME", "NFE" …; caller frees. NULL: out of memory. */
char *kac_bench_quantity_name(const kac_bench_data *d, int quantity);
/* The qualities that the bench has: reward, each judge, and the means when more than one picture is handed over. [KAC_BENCH_MAX_QUANTITIES],
 * the count. */
int kac_bench_qualities(int out[KAC_BENCH_MAX_QUANTITIES], const kac_bench_page *p, bool with_means);
/* The judge that verdicts use: the first; the reward when there is none. */
int kac_bench_first_judge(const kac_bench_data *d);
/* A budget with its unit: "3,200 NFE", "20 s". */
void kac_bench_budget(kac_text *t, const kac_bench_data *d, int budget);
/* "NFE", "s", "particles" */
const char *kac_bench_unit_text(const kac_bench_data *d);
/* The largest budget at which anything is finished. */
int kac_bench_last_budget(const kac_bench_page *p);

/* <td>: mean, and below it half the band's width; the band in the tooltip. */
void kac_bench_mean_cell(kac_text *t, const kac_bench_mean *m, bool best);
/* <th> of a method: its label in its colour. */
void kac_bench_method_head(kac_text *t, const kac_bench_data *d, int method);

extern const char kac_bench_style[];

#endif
