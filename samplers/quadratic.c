/* The quadratic reward of include/kac/mixture.h. */
#include "base/base.h"
#include "samplers/mixture.h"

typedef struct quadratic {
    kac_reward reward;
    char *name;
    int d;
    double c;
    double a[KAC_GMM_MAX], b[KAC_GMM_MAX];
    double A[KAC_GMM_MAX * KAC_GMM_MAX];
} quadratic;

static double evaluate(const quadratic *q, const double *x) {
    double square = 0.0, linear = 0.0;
    for (int i = 0; i < q->d; i++) {
        double row = 0.0;
        for (int j = 0; j < q->d; j++) row += q->A[i * q->d + j] * (x[j] - q->a[j]);
        square += (x[i] - q->a[i]) * row;
        linear += q->b[i] * x[i];
    }
    return -0.5 * square + linear + q->c;
}

static kac_status check_process(const kac_reward *r, const kac_process *p) {
    const quadratic *q = r->self;
    const kac_mixture *m = kac_mixture_of(p);
    if (m == NULL) return KAC_FAIL(KAC_E_USAGE, "the quadratic reward scores Gaussian mixtures, not images");
    if (kac_mixture_dim(m) != q->d)
        return KAC_FAIL(KAC_E_SHAPE, "%s: the reward has %d dimensions, the mixture %d", r->name, q->d,
                        kac_mixture_dim(m));
    return KAC_OK;
}

static kac_status quadratic_score(kac_reward *r, kac_process *p, const int *slots, int n, kac_stage stage,
                                  double *out) {
    KAC_TRY(check_process(r, p));
    for (int i = 0; i < n; i++) out[i] = evaluate(r->self, kac_mixture_point(p, slots[i], stage));
    return KAC_OK;
}

/* b − ½ (A + A') (x − a): A need not be symmetric. */
static kac_status quadratic_grad(kac_reward *r, kac_process *p, const int *slots, int n, kac_stage stage, double *out,
                                 float *d_state) {
    const quadratic *q = r->self;
    KAC_TRY(quadratic_score(r, p, slots, n, stage, out));
    for (int s = 0; s < n; s++) {
        const double *x = kac_mixture_point(p, slots[s], stage);
        for (int i = 0; i < q->d; i++) {
            double sum = q->b[i];
            for (int j = 0; j < q->d; j++) sum -= 0.5 * (q->A[i * q->d + j] + q->A[j * q->d + i]) * (x[j] - q->a[j]);
            d_state[s * q->d + i] = (float)sum;
        }
    }
    return KAC_OK;
}

static kac_status read_all(quadratic *q, const kac_json *j) {
    const cJSON *A = cJSON_GetObjectItemCaseSensitive(j->root, "A"), *row = NULL;
    q->d = cJSON_GetArraySize(A);
    if (!cJSON_IsArray(A) || q->d < 1 || q->d > KAC_GMM_MAX)
        return KAC_FAIL(KAC_E_FORMAT, "%s: A must be a square matrix of 1 to %d rows", j->name, KAC_GMM_MAX);
    int i = 0;
    cJSON_ArrayForEach(row, A) KAC_TRY(kac_mixture_numbers(j, row, "a row of A", q->A + q->d * i++, q->d));
    const cJSON *a = cJSON_GetObjectItemCaseSensitive(j->root, "a"),
                *b = cJSON_GetObjectItemCaseSensitive(j->root, "b");
    if (a != NULL) KAC_TRY(kac_mixture_numbers(j, a, "a", q->a, q->d));
    if (b != NULL) KAC_TRY(kac_mixture_numbers(j, b, "b", q->b, q->d));
    return kac_json_real(j, j->root, "c", &q->c);
}

static kac_status quadratic_init(quadratic *q, const char *text, size_t n, const char *name) {
    q->name = kac_format("quadratic=%s", name);
    if (q->name == NULL) return KAC_E_MEMORY;
    q->reward = (kac_reward){.self = q, .name = q->name, .score = quadratic_score, .grad = quadratic_grad};
    kac_json j = {0};
    KAC_TRY(kac_json_parse(&j, text, n, name));
    const kac_status status = read_all(q, &j);
    kac_json_free(&j);
    return status;
}

kac_status kac_quadratic_parse(kac_reward **out, const char *text, size_t n, const char *name) {
    *out = NULL;
    quadratic *q = kac_alloc(sizeof *q);
    if (q == NULL) return KAC_E_MEMORY;
    const kac_status status = quadratic_init(q, text, n, name);
    if (status != KAC_OK)
        kac_quadratic_destroy(&q->reward);
    else
        *out = &q->reward;
    return status;
}

kac_status kac_quadratic_load(kac_reward **out, const char *path) {
    char *text = NULL;
    size_t n = 0;
    *out = NULL;
    KAC_TRY(kac_file_read(&text, &n, path, 1 << 20));
    const kac_status status = kac_quadratic_parse(out, text, n, path);
    kac_free(text);
    return status;
}

void kac_quadratic_destroy(kac_reward *r) {
    if (r == NULL) return;
    quadratic *q = (quadratic *)r; /* the reward is its first member, and self may not be set yet */
    kac_free(q->name);
    kac_free(q);
}
