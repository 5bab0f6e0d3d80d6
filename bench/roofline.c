#include "bench/roofline.h"

#include "base/base.h"
#include <string.h>
#include <time.h>

/* Ten independent chains hide the latency of a fused multiply-add on two ports; more would not fit in 16 registers. */
enum { N_CHAINS = 10, N_ROUNDS = 1 << 15 };

#define DEFINE_BURN(name, target, n_lanes)                                                                             \
    target static float name(float start) {                                                                            \
        typedef float lanes __attribute__((vector_size(4 * (n_lanes))));                                               \
        lanes chain[N_CHAINS], factor, term, sum;                                                                      \
        for (int l = 0; l < (n_lanes); l++) factor[l] = 0.999f, term[l] = start;                                       \
        for (int i = 0; i < N_CHAINS; i++) chain[i] = factor * (float)i;                                               \
        for (int round = 0; round < N_ROUNDS; round++)                                                                 \
            for (int i = 0; i < N_CHAINS; i++) chain[i] = chain[i] * factor + term;                                    \
        sum = chain[0];                                                                                                \
        for (int i = 1; i < N_CHAINS; i++) sum += chain[i];                                                            \
        return sum[0];                                                                                                 \
    }

DEFINE_BURN(burn_portable, , 4)
#if defined(__x86_64__)
DEFINE_BURN(burn_avx2, __attribute__((target("avx2,fma"))), 8)
DEFINE_BURN(burn_avx512, __attribute__((target("avx512f,fma"))), 16)
#endif

typedef struct burner {
    float (*run)(float start);
    int n_lanes;
} burner;

static burner burner_of_this_machine(void) {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f")) return (burner){burn_avx512, 16};
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return (burner){burn_avx2, 8};
#endif
    return (burner){burn_portable, 4};
}

double roofline_thread_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

/* Each thread by its own clock, so that a busy machine does not lower the yardstick. */
static double measure_flops(int n_threads) {
    const burner b = burner_of_this_machine();
    double total = 0;
    float sum = 0;
#pragma omp parallel for num_threads(n_threads) reduction(+ : sum, total) schedule(static, 1)
    for (int i = 0; i < n_threads; i++) {
        double best = 0;
        for (int repeat = 0; repeat < 100; repeat++) {
            const double start = roofline_thread_ms();
            sum += b.run((float)i);
            best = KAC_MAX(best, 2e3 * b.n_lanes * N_CHAINS * N_ROUNDS / (roofline_thread_ms() - start));
        }
        total += best;
    }
    return sum == 12345.0f ? 0 : total; /* the sum is looked at, so that the work is done */
}

static double measure_bytes(int n_threads) {
    const size_t n = (size_t)64 << 20, part = n / (size_t)n_threads;
    char *from = kac_alloc(n), *to = kac_alloc(n);
    double best = 0;
    for (int repeat = 0; repeat < 6 && from != NULL && to != NULL; repeat++) {
        const double start = kac_now_ms();
#pragma omp parallel for num_threads(n_threads) schedule(static, 1)
        for (int i = 0; i < n_threads; i++) memcpy(to + (size_t)i * part, from + (size_t)i * part, part);
        if (repeat > 0) best = KAC_MAX(best, 2.0 * (double)n / (kac_now_ms() - start) * 1e3);
    }
    kac_free(from);
    kac_free(to);
    return best;
}

roofline roofline_measure(int n_threads) {
    return (roofline){measure_flops(n_threads), measure_bytes(n_threads)};
}
