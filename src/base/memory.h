/* For tests: makes allocations fail. */
#ifndef KAC_MEMORY_H
#define KAC_MEMORY_H

/* The n-th kac_alloc/kac_realloc from now on fails (1 = the next), and those after it; 0 switches this off. Counts over
 * all threads. */
void kac_alloc_fail_after(long n);

#endif
