/* Who descends from whom in one group, from the ancestors that the steps report. Between two resamplings nothing changes; such a stretch
 * is a segment. Segment 0 begins at step 0; segment j + 1 after the j-th resampling.
 *
 *     segment 0        segment 1          a particle is alive when it has
 *     0 ────────┐ ┌─── 0                  a descendant at the end
 *     1 ────────┼─┴─── 1
 *     2 ────    └───── 2                  (2 of segment 0 died; 0 of segment 0 lives on as 2)
 */
#ifndef KAC_REPORT_LINEAGE_H
#define KAC_REPORT_LINEAGE_H

#include "run_data.h"

typedef struct kac_lineage {
    int n;           /* particles */
    int n_segments;  /* resamplings + 1 */
    int first, last; /* steps of the first and last event */
    int *step;       /* [n_segments]: the resampling that began it; −1 for segment 0 */
    int *ancestor;   /* [n_segments, n]: particle of the segment before; itself in segment 0 */
    int *eve;        /* [n_segments, n]: particle of segment 0 */
    bool *alive;     /* [n_segments, n] */
} kac_lineage;

/* From the events of one group. n 0 when there are none. KAC_E_MEMORY. */
kac_status kac_lineage_init(kac_lineage *l, const kac_run_step *steps, int n_steps);
void kac_lineage_free(kac_lineage *l);
/* The segment of step i_step before its resampling. */
int kac_lineage_segment(const kac_lineage *l, int i_step);
/* The particle of `segment` that final particle i descends from. */
int kac_lineage_back(const kac_lineage *l, int i, int segment);

/* The family tree as a <figure>; `best`: the final particle whose line is drawn bold, −1: none. */
void kac_lineage_draw(kac_text *t, const kac_lineage *l, int best);

#endif
