/* A program outside the tree: steers an exact mixture with a reward of its own, and knows the answer.
 *
 * Prior ½ N(−1, ¼) + ½ N(1, ¼), reward r(x) = x, lambda 1: the target is ∝ prior · e^x, so
 *     Z = ½ (e^−1 + e) e^⅛,  log Z = 0.5588;  E x = tanh 1 + ¼ = 1.0116. */
#include <kac/kac.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static const char mixture[] =
    "{\"_class_name\": \"GaussianMixture\", \"weights\": [0.5, 0.5], \"means\": [[-1], [1]],"
    " \"covariances\": [[[0.25]], [[0.25]]], \"kernel\": \"exact\","
    " \"schedule\": {\"alphas_cumprod\": [0.98, 0.9, 0.75, 0.55, 0.35, 0.18, 0.08, 0.03, 0.01, 0.003]}}";

static int n_scored;

static kac_status score(kac_reward *r, kac_process *p, const int *slots, int n, kac_stage stage, double *out) {
    (void)r;
    for (int i = 0; i < n; i++) out[i] = kac_mixture_point(p, slots[i], stage)[0];
    n_scored += n;
    return KAC_OK;
}

static int n_steps_seen;
static kac_status on_step(kac_events *e, const kac_step_event *event) {
    (void)e;
    n_steps_seen += event->n_particles > 0;
    return KAC_OK;
}

static kac_status steer(kac_mixture *m, double *log_z, double *mean, int n) {
    const kac_method *fk = kac_method_find("fk");
    if (fk == NULL) return kac_fail(KAC_E_UNSUPPORTED, "there is no fk");
    kac_options *options = kac_options_create(fk->options);
    if (options == NULL) return KAC_E_MEMORY;
    kac_status status = kac_options_set(options, "lambda", "1");
    if (status == KAC_OK) status = kac_options_set(options, "score-every", "1");
    kac_reward reward = {.name = "x", .score = score};
    kac_events events = {.on_step = on_step};
    kac_particles particles;
    memset(&particles, 0, sizeof particles);
    if (status == KAC_OK) status = fk->run(&particles, kac_mixture_process(m), &reward, &events, options, 7);
    if (status == KAC_OK) {
        double top = -INFINITY, sum = 0;
        *log_z = particles.log_z[0];
        *mean = 0;
        for (int i = 0; i < n; i++) top = fmax(top, particles.log_weights[i]);
        for (int i = 0; i < n; i++) {
            const double w = exp(particles.log_weights[i] - top);
            sum += w;
            *mean += w * kac_mixture_point(kac_mixture_process(m), i, KAC_STAGE_FINAL)[0];
        }
        *mean /= sum;
    }
    kac_particles_free(&particles);
    kac_options_destroy(options);
    return status;
}

int main(void) {
    enum { N = 8192 };
    const kac_mixture_options how = {.n_groups = 1, .n_per_group = N, .seed = 7, .eta = 1};
    kac_mixture *m = NULL;
    double log_z = 0, mean = 0;
    kac_status status = kac_mixture_parse(&m, mixture, strlen(mixture), "mixture", &how);
    if (status == KAC_OK) status = steer(m, &log_z, &mean, N);
    kac_mixture_destroy(m);
    if (status != KAC_OK) {
        printf("%s: %s\n", kac_status_text(status), kac_error());
        return 1;
    }
    printf("log Z %.4f (0.5588), E x %.4f (1.0116), %d rewards, %d steps\n", log_z, mean, n_scored, n_steps_seen);
    return fabs(log_z - 0.5588) < 0.05 && fabs(mean - 1.0116) < 0.05 && n_scored > N && n_steps_seen > 10 ? 0 : 1;
}
