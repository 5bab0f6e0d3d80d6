/* The parts of a run's page. */
#ifndef KAC_REPORT_PAGE_H
#define KAC_REPORT_PAGE_H

#include "report.h"
#include "run_data.h"

/* What is being written, and how many bytes of pictures it may still hold. */
typedef struct kac_page {
    kac_text *t;
    const kac_run_data *d;
    kac_report_info *info;
    int64_t finals_left_bytes, previews_left_bytes;
} kac_page;

/* One prompt: pictures, the way there, family tree, curves. */
kac_status kac_page_group(kac_page *p, int group);
/* Of one prompt, when a method searched: curves against evaluations, its tree. */
kac_status kac_page_search(kac_page *p, int group);
/* The page of `kac tune`, before the facts. */
kac_status kac_page_tune(kac_page *p);
/* Costs, options, model, command line: after the groups. */
void kac_page_facts(kac_page *p);

/* An <img> of a PNG in the run folder as a data URI; false when the file is missing, no PNG, or beyond what is left of *left_bytes. */
bool kac_page_image(kac_page *p, const char *file, const char *alt, int64_t *left_bytes);
/* The prompt of a group; "" when there is none. */
const char *kac_page_prompt(const kac_run_data *d, int group);

#endif
