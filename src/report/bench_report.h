/* The page of a bench folder (bench_data.h says what is in it), with tables and plots beside it. Needs no network.
 *
 *     BENCH/index.html     the page; pictures, trees and family trees stay files of the folder
 *     BENCH/results.csv    one row for each finished cell        BENCH/curves.csv   one for each method and budget, with bands
 *     BENCH/plots/NAME.png, NAME.svg   reward and judges against evaluations, seconds, arithmetic
 *     BENCH/views/NAME.html  trees and family trees to open
 */
#ifndef KAC_REPORT_BENCH_REPORT_H
#define KAC_REPORT_BENCH_REPORT_H

#include "base/base.h"

typedef struct kac_bench_report_info {
    int n_cells, n_done, n_failed; /* of the whole bench */
    int n_prompts_shown;           /* in the walls of pictures */
    int n_images, n_plots, n_views;
    size_t n_bytes; /* of index.html */
} kac_bench_report_info;

/* Reads the folder and writes all of the above, each file atomically. Works on a bench that is still going on or was killed. `info` may be
 * NULL. Fails as kac_bench_data_load, and IO. */
kac_status kac_bench_report_write(const char *folder, kac_bench_report_info *info);

/* The page alone as text, nothing is written; caller frees with kac_text_free, also on failure. */
kac_status kac_bench_report_render(kac_text *page, const char *folder, kac_bench_report_info *info);

#endif
