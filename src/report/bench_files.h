/* Tables and plots beside a bench's page. */
#ifndef KAC_REPORT_BENCH_FILES_H
#define KAC_REPORT_BENCH_FILES_H

#include "page_bench.h"

/* One row for each cell that is finished or failed. */
void kac_bench_results_csv(kac_text *t, const kac_bench_data *d);
/* One row for each method and budget: costs, and means with bands of every quality. */
void kac_bench_curves_csv(kac_text *t, const kac_bench_page *p);
/* Writes both, and plots of every quality against every cost. */
kac_status kac_bench_files_write(kac_bench_page *p);

#endif
