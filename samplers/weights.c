#include "samplers/gaussian.h"
#include "samplers/swarm.h"
#include <math.h>

double kac_log_weights_log_mean(const double *log_w, int k) {
    return kac_log_sum_exp(log_w, k) - log((double)k);
}

void kac_log_weights_normalise(double *w, const double *log_w, int k) {
    double top = -INFINITY, sum = 0.0;
    for (int i = 0; i < k; i++) top = fmax(top, log_w[i]);
    for (int i = 0; i < k; i++) sum += w[i] = exp(log_w[i] - top);
    for (int i = 0; i < k; i++) w[i] /= sum;
}

double kac_log_weights_ess(const double *log_w, int k) {
    double top = -INFINITY, sum = 0.0, squares = 0.0;
    for (int i = 0; i < k; i++) top = fmax(top, log_w[i]);
    for (int i = 0; i < k; i++) {
        const double w = exp(log_w[i] - top);
        sum += w;
        squares += w * w;
    }
    return sum * sum / squares;
}
