#include "base/base.h"
#include "samplers/mixture.h"
#include <math.h>
#include <string.h>

enum { MAX_STEPS = 10000 };

kac_status kac_mixture_numbers(const kac_json *j, const cJSON *list, const char *what, double *out, int n) {
    if (!cJSON_IsArray(list) || cJSON_GetArraySize(list) != n)
        return KAC_FAIL(KAC_E_FORMAT, "%s: %s must be a list of %d numbers", j->name, what, n);
    const cJSON *v = NULL;
    cJSON_ArrayForEach(v, list) {
        if (!cJSON_IsNumber(v) || !isfinite(v->valuedouble))
            return KAC_FAIL(KAC_E_FORMAT, "%s: %s holds something that is not a finite number", j->name, what);
        *out++ = v->valuedouble;
    }
    return KAC_OK;
}

static kac_status need_list(const kac_json *j, const cJSON *obj, const char *key, int max, const cJSON **out) {
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(obj, key);
    const int n = cJSON_GetArraySize(list);
    if (!cJSON_IsArray(list) || n < 1 || n > max)
        return KAC_FAIL(KAC_E_FORMAT, "%s: %s must be a list of 1 to %d entries", j->name, key, max);
    *out = list;
    return KAC_OK;
}

static kac_status read_weights(const kac_json *j, const cJSON *weights, kac_gmm *g) {
    KAC_TRY(kac_mixture_numbers(j, weights, "weights", g->w, g->k));
    double sum = 0.0;
    for (int k = 0; k < g->k; k++) {
        if (!(g->w[k] > 0.0)) return KAC_FAIL(KAC_E_FORMAT, "%s: weights must be positive, not %g", j->name, g->w[k]);
        sum += g->w[k];
    }
    if (fabs(sum - 1.0) > 1e-6) return KAC_FAIL(KAC_E_FORMAT, "%s: weights sum to %.9g, not to 1", j->name, sum);
    for (int k = 0; k < g->k; k++) g->w[k] /= sum;
    return KAC_OK;
}

static kac_status read_covariance(const kac_json *j, const cJSON *matrix, double *out, int d, int k) {
    if (!cJSON_IsArray(matrix) || cJSON_GetArraySize(matrix) != d)
        return KAC_FAIL(KAC_E_FORMAT, "%s: covariances[%d] must be a %d × %d matrix", j->name, k, d, d);
    int i = 0;
    const cJSON *row = NULL;
    cJSON_ArrayForEach(row, matrix) KAC_TRY(kac_mixture_numbers(j, row, "a row of covariances", out + d * i++, d));
    for (int a = 0; a < d; a++)
        for (int b = 0; b < a; b++) {
            if (fabs(out[a * d + b] - out[b * d + a]) > 1e-9 * (fabs(out[a * d + a]) + fabs(out[b * d + b])))
                return KAC_FAIL(KAC_E_FORMAT, "%s: covariances[%d] is not symmetric", j->name, k);
        }
    double *factor = kac_alloc((size_t)(d * d) * sizeof(double));
    if (factor == NULL) return KAC_E_MEMORY;
    const bool positive = kac_cholesky(factor, out, d);
    kac_free(factor);
    if (!positive) return KAC_FAIL(KAC_E_FORMAT, "%s: covariances[%d] is not positive definite", j->name, k);
    return KAC_OK;
}

static kac_status read_prior(const kac_json *j, kac_gmm *g) {
    const cJSON *weights = NULL, *means = NULL, *covs = NULL;
    KAC_TRY(need_list(j, j->root, "weights", KAC_GMM_MAX, &weights));
    KAC_TRY(need_list(j, j->root, "means", KAC_GMM_MAX, &means));
    KAC_TRY(need_list(j, j->root, "covariances", KAC_GMM_MAX, &covs));
    const int k = cJSON_GetArraySize(weights), d = cJSON_GetArraySize(means->child);
    if (cJSON_GetArraySize(means) != k || cJSON_GetArraySize(covs) != k)
        return KAC_FAIL(KAC_E_FORMAT, "%s: %d weights, %d means and %d covariances; the counts must agree", j->name, k,
                        cJSON_GetArraySize(means), cJSON_GetArraySize(covs));
    if (d < 1 || d > KAC_GMM_MAX)
        return KAC_FAIL(KAC_E_FORMAT, "%s: means must have 1 to %d dimensions, not %d", j->name, KAC_GMM_MAX, d);
    KAC_TRY(kac_gmm_init(g, k, d));
    KAC_TRY(read_weights(j, weights, g));
    int i = 0;
    const cJSON *v = NULL;
    cJSON_ArrayForEach(v, means) KAC_TRY(kac_mixture_numbers(j, v, "an entry of means", g->mean + d * i++, d));
    i = 0;
    cJSON_ArrayForEach(v, covs) {
        KAC_TRY(read_covariance(j, v, g->cov + d * d * i, d, i));
        i++;
    }
    return KAC_OK;
}

static kac_status read_schedule(const kac_json *j, kac_mixture_model *m) {
    const cJSON *schedule = cJSON_GetObjectItemCaseSensitive(j->root, "schedule");
    const cJSON *list = NULL;
    if (!cJSON_IsObject(schedule)) return KAC_FAIL(KAC_E_FORMAT, "%s: schedule must be an object", j->name);
    KAC_TRY(need_list(j, schedule, "alphas_cumprod", MAX_STEPS, &list));
    m->n_steps = cJSON_GetArraySize(list);
    m->alpha_bar = kac_alloc(((size_t)m->n_steps + 1) * sizeof(double));
    if (m->alpha_bar == NULL) return KAC_E_MEMORY;
    m->alpha_bar[0] = 1.0;
    KAC_TRY(kac_mixture_numbers(j, list, "alphas_cumprod", m->alpha_bar + 1, m->n_steps));
    for (int n = 1; n <= m->n_steps; n++)
        if (!(m->alpha_bar[n] > 0.0 && m->alpha_bar[n] < m->alpha_bar[n - 1]))
            return KAC_FAIL(KAC_E_FORMAT,
                            "%s: alphas_cumprod must fall from below 1 to above 0; entry %d is %g after %g", j->name,
                            n - 1, m->alpha_bar[n], m->alpha_bar[n - 1]);
    return KAC_OK;
}

static kac_status read_model(const kac_json *j, kac_mixture_model *m) {
    const char *class_name = NULL, *kernel = "exact";
    KAC_TRY(kac_json_text(j, j->root, "_class_name", &class_name));
    if (class_name == NULL || strcmp(class_name, "GaussianMixture") != 0)
        return KAC_FAIL(KAC_E_FORMAT, "%s: _class_name must be \"GaussianMixture\"", j->name);
    KAC_TRY(kac_json_text(j, j->root, "kernel", &kernel));
    m->ddim = strcmp(kernel, "ddim") == 0;
    if (!m->ddim && strcmp(kernel, "exact") != 0)
        return KAC_FAIL(KAC_E_UNSUPPORTED, "%s: kernel \"%.40s\" is not supported; choose \"exact\" or \"ddim\"",
                        j->name, kernel);
    KAC_TRY(read_prior(j, &m->prior));
    return read_schedule(j, m);
}

kac_status kac_mixture_model_parse(kac_mixture_model *m, const char *text, size_t n, const char *name) {
    *m = (kac_mixture_model){0};
    kac_json j = {0};
    KAC_TRY(kac_json_parse(&j, text, n, name));
    const kac_status status = read_model(&j, m);
    kac_json_free(&j);
    if (status != KAC_OK) kac_mixture_model_free(m);
    return status;
}

void kac_mixture_model_free(kac_mixture_model *m) {
    kac_gmm_free(&m->prior);
    kac_free(m->alpha_bar);
    *m = (kac_mixture_model){0};
}
