/* The shapes as signed distances, and their templates. */
#include "reward/judge.h"
#include "reward/judge_patch.h"
#include <math.h>

static float triangle_distance(float x, float y) {
    y -= 0.15f;
    return fmaxf(y, fmaxf(-0.5f * y + 0.866f * x, -0.5f * y - 0.866f * x)) - 0.58f;
}

static float star_distance(float x, float y) {
    const double w = 2 * M_PI / 5, ix = 0.46 * cos(w / 2), iy = 0.46 * sin(w / 2), dx = ix - 1.1, dy = iy,
                 length = hypot(dx, dy);
    const double a = atan2(x, -y) + w / 2, folded = fabs(a - floor(a / w) * w - w / 2),
                 r = sqrt((double)x * x + (double)y * y);
    const double px = r * cos(folded), py = r * sin(folded);
    return (float)(((px - 1.1) * dy - py * dx) / length);
}

static float heart_distance(float x, float y) {
    const float k = 0.58f;
    x = fabsf(x * k), y = -y * k + 0.52f;
    if (x + y > 1) return (sqrtf((x - 0.25f) * (x - 0.25f) + (y - 0.75f) * (y - 0.75f)) - sqrtf(2) / 4) / k;
    const float m = 0.5f * fmaxf(x + y, 0), sign = x > y ? 1 : x < y ? -1 : 0;
    return sqrtf(fminf(x * x + (y - 1) * (y - 1), (x - m) * (x - m) + (y - m) * (y - m))) * sign / k;
}

float kac_shape_distance(kac_shape shape, float x, float y) {
    const float ax = fabsf(x), ay = fabsf(y);
    switch (shape) {
    case KAC_CIRCLE:
        return sqrtf(x * x + y * y) - 0.95f;
    case KAC_SQUARE:
        return fmaxf(ax, ay) - 0.86f;
    case KAC_TRIANGLE:
        return triangle_distance(x, y);
    case KAC_STAR:
        return star_distance(x, y);
    case KAC_HEART:
        return heart_distance(x, y);
    case KAC_CROSS:
        return fminf(fmaxf(ax - 1, ay - 0.34f), fmaxf(ax - 0.34f, ay - 1));
    case KAC_DIAMOND:
        return (ax / 0.68f + ay / 1.1f - 1) / (float)sqrt(1 / (0.68 * 0.68) + 1 / (1.1 * 1.1));
    case KAC_RING:
        return fabsf(sqrtf(x * x + y * y) - 0.76f) - 0.26f;
    }
    return INFINITY;
}

kac_moments kac_patch_moments(const float *alpha) {
    double m = 0, mx = 0, my = 0, m2 = 0;
    for (int y = 0; y < KAC_JUDGE_EDGE; y++)
        for (int x = 0; x < KAC_JUDGE_EDGE; x++) {
            const double a = alpha[y * KAC_JUDGE_EDGE + x];
            m += a, mx += a * (x + 0.5), my += a * (y + 0.5);
        }
    m = fmax(m, 1e-6);
    const double cx = mx / m, cy = my / m;
    for (int y = 0; y < KAC_JUDGE_EDGE; y++)
        for (int x = 0; x < KAC_JUDGE_EDGE; x++)
            m2 += alpha[y * KAC_JUDGE_EDGE + x] * ((x + 0.5 - cx) * (x + 0.5 - cx) + (y + 0.5 - cy) * (y + 0.5 - cy));
    return (kac_moments){(float)m, (float)cx, (float)cy, (float)sqrt(fmax(m2 / m, 0.25))};
}

static float alpha_at(const float *alpha, int x, int y) {
    return x < 0 || y < 0 || x >= KAC_JUDGE_EDGE || y >= KAC_JUDGE_EDGE ? 0 : alpha[y * KAC_JUDGE_EDGE + x];
}

void kac_patch_crop(float *out, const float *alpha, kac_moments m) {
    const float span = 2.1f; /* half width in rms radii */
    for (int i = 0; i < KAC_JUDGE_PATCH; i++)
        for (int j = 0; j < KAC_JUDGE_PATCH; j++) {
            const float gy = (i + 0.5f) / KAC_JUDGE_PATCH * 2 - 1, gx = (j + 0.5f) / KAC_JUDGE_PATCH * 2 - 1;
            const float py = m.y + gy * span * m.r - 0.5f, px = m.x + gx * span * m.r - 0.5f, fy = floorf(py),
                        fx = floorf(px);
            const float wy = py - fy, wx = px - fx;
            const int y = (int)fy, x = (int)fx;
            out[i * KAC_JUDGE_PATCH + j] =
                (1 - wy) * ((1 - wx) * alpha_at(alpha, x, y) + wx * alpha_at(alpha, x + 1, y)) +
                wy * ((1 - wx) * alpha_at(alpha, x, y + 1) + wx * alpha_at(alpha, x + 1, y + 1));
        }
}

/* One template: the shape of radius r, turned by `turn`, antialiased on the pixel grid. Returns its area in pixels. */
static float render_template(kac_judge_template *t, kac_shape shape, float r, double turn) {
    float alpha[KAC_JUDGE_EDGE * KAC_JUDGE_EDGE];
    const float c = (float)cos(turn), s = (float)sin(turn), middle = KAC_JUDGE_EDGE / 2;
    for (int i = 0; i < KAC_JUDGE_EDGE; i++)
        for (int j = 0; j < KAC_JUDGE_EDGE; j++) {
            const float x = (j + 0.5f - middle) / r, y = (i + 0.5f - middle) / r;
            const float v = 0.5f - kac_shape_distance(shape, x * c + y * s, -x * s + y * c) * r;
            alpha[i * KAC_JUDGE_EDGE + j] = fminf(fmaxf(v, 0), 1);
        }
    const kac_moments m = kac_patch_moments(alpha);
    t->shape = shape;
    kac_patch_crop(t->alpha, alpha, m);
    return m.mass;
}

kac_status kac_judge_init(kac_judge *j) {
    /* Small ones carry the pixels' blur. */
    static const float radii[] = {7.2f, 9, 13};
    static const int degrees[] = {-24, -16, -8, 0, 8, 16, 24};
    *j = (kac_judge){.templates = kac_alloc((size_t)KAC_N_SHAPES * KAC_COUNT_OF(radii) * KAC_COUNT_OF(degrees) *
                                            sizeof *j->templates)};
    if (j->templates == NULL) return KAC_E_MEMORY;
    for (int shape = 0; shape < KAC_N_SHAPES; shape++)
        for (int i = 0; i < KAC_COUNT_OF(radii); i++)
            for (int k = 0; k < KAC_COUNT_OF(degrees); k++) {
                const bool round = shape == KAC_CIRCLE || shape == KAC_RING;
                if (round && degrees[k] != 0) continue;
                const float area = render_template(&j->templates[j->n_templates++], (kac_shape)shape, radii[i],
                                                   degrees[k] * M_PI / 180);
                j->area[shape] = area / (radii[i] * radii[i]);
            }
    return KAC_OK;
}

void kac_judge_free(kac_judge *j) {
    kac_free(j->templates);
    *j = (kac_judge){0};
}
