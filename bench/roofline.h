/* What this machine can do at most, measured now: the yardstick of the op rows. */
#ifndef KAC_BENCH_ROOFLINE_H
#define KAC_BENCH_ROOFLINE_H

typedef struct roofline {
    double flops_per_s; /* f32 fused multiply-adds on registers, all threads; each counts 2 */
    double bytes_per_s; /* reading and writing memory far larger than the caches, all threads */
} roofline;

/* About a third of a second. */
roofline roofline_measure(int n_threads);

/* The calling thread's own time, which stands still while others have the CPU. */
double roofline_thread_ms(void);

#endif
