/* From a 64 × 64 picture to a scene: chroma mask → connected components → palette colour and nearest template. */
#include "reward/judge.h"
#include "reward/judge_patch.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { EDGE = KAC_JUDGE_EDGE, N = EDGE * EDGE, PATCH = KAC_JUDGE_PATCH * KAC_JUDGE_PATCH };

static const float object_chroma = 62, rim_chroma = 40, min_area = 22;

typedef struct canvas {
    float chroma[N], gray[N];
    uint8_t color[N]; /* nearest palette colour */
    int label[N];     /* 0: background, else 1 + a pixel of the component */
} canvas;

static void measure(canvas *c, const uint8_t *rgb) {
    for (int i = 0; i < N; i++) {
        const float r = rgb[3 * i], g = rgb[3 * i + 1], b = rgb[3 * i + 2], mean = (r + g + b) / 3;
        c->gray[i] = mean;
        c->chroma[i] = fmaxf(r, fmaxf(g, b)) - fminf(r, fminf(g, b));
        float best = INFINITY;
        for (int k = 0; k < KAC_N_COLORS; k++) {
            const uint8_t *p = kac_color_rgb[k];
            const float pm = (float)(p[0] + p[1] + p[2]) / 3;
            const float dr = r - mean - (p[0] - pm), dg = g - mean - (p[1] - pm), db = b - mean - (p[2] - pm);
            const float d = sqrtf(dr * dr + dg * dg + db * db) + 0.35f * fabsf(mean - pm);
            if (d < best) best = d, c->color[i] = (uint8_t)k;
        }
    }
}

/* 4-neighbour components of the chroma mask, by flooding. */
static void label_components(canvas *c) {
    int stack[N];
    memset(c->label, 0, sizeof c->label);
    for (int start = 0; start < N; start++) {
        if (c->label[start] != 0 || c->chroma[start] <= object_chroma) continue;
        int n = 0;
        stack[n++] = start, c->label[start] = start + 1;
        while (n > 0) {
            const int i = stack[--n], x = i % EDGE, y = i / EDGE;
            const int next[4] = {x > 0 ? i - 1 : i, x < EDGE - 1 ? i + 1 : i, y > 0 ? i - EDGE : i,
                                 y < EDGE - 1 ? i + EDGE : i};
            for (int k = 0; k < 4; k++)
                if (c->label[next[k]] == 0 && c->chroma[next[k]] > object_chroma)
                    c->label[next[k]] = start + 1, stack[n++] = next[k];
        }
    }
}

/* Grows a mask by one pixel in all eight directions. */
static void dilate(bool out[N], const bool in[N]) {
    for (int y = 0; y < EDGE; y++)
        for (int x = 0; x < EDGE; x++) {
            bool any = false;
            for (int v = KAC_MAX(0, y - 1); v <= KAC_MIN(EDGE - 1, y + 1); v++)
                for (int u = KAC_MAX(0, x - 1); u <= KAC_MIN(EDGE - 1, x + 1); u++) any |= in[v * EDGE + u];
            out[y * EDGE + x] = any;
        }
}

/* Pixels whose whole 3 × 3 neighbourhood lies in the mask (and in the picture). */
static int erode(bool out[N], const bool in[N]) {
    int count = 0;
    for (int y = 0; y < EDGE; y++)
        for (int x = 0; x < EDGE; x++) {
            bool all = x > 0 && y > 0 && x < EDGE - 1 && y < EDGE - 1;
            for (int v = y - 1; v <= y + 1 && all; v++)
                for (int u = x - 1; u <= x + 1 && all; u++) all = in[v * EDGE + u];
            out[y * EDGE + x] = all;
            count += all;
        }
    return count;
}

static int compare_floats(const void *a, const void *b) {
    const float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* Quantile of sorted values, linear between neighbours. */
static float quantile(const float *sorted, int n, double q) {
    const double at = q * (n - 1);
    const int i = (int)at;
    return (float)(sorted[i] + (at - i) * (sorted[KAC_MIN(n - 1, i + 1)] - sorted[i]));
}

static kac_background background_of(const canvas *c) {
    bool colored[N], near[N];
    float gray[N];
    int n = 0;
    for (int i = 0; i < N; i++) colored[i] = c->chroma[i] > rim_chroma;
    dilate(near, colored);
    for (int i = 0; i < N; i++)
        if (!near[i]) gray[n++] = c->gray[i];
    if (n < 50) return KAC_BG_NONE;
    qsort(gray, (size_t)n, sizeof *gray, compare_floats);
    const float median = gray[(n - 1) / 2];
    if (quantile(gray, n, 0.96) - quantile(gray, n, 0.04) > 40) return KAC_BG_GRADIENT;
    if (median > 205) return KAC_BG_WHITE;
    if (median < 50) return KAC_BG_BLACK;
    return median > 90 && median < 165 ? KAC_BG_GRAY : KAC_BG_NONE;
}

/* One blob of one colour: how much of each pixel it covers, its shape, its size. */
static void add_object(kac_scene *scene, const kac_judge *j, const canvas *c, const bool mask[N], const bool core[N],
                       int color) {
    float inner[N], alpha[N], patch[PATCH];
    bool near[N];
    int n = 0;
    for (int i = 0; i < N; i++)
        if (mask[i] && core[i]) inner[n++] = c->chroma[i];
    qsort(inner, (size_t)n, sizeof *inner, compare_floats);
    const float full = n > 0 ? fmaxf(inner[(n - 1) / 2], 60) : 150;
    dilate(near, mask);
    for (int i = 0; i < N; i++) alpha[i] = near[i] ? fminf(c->chroma[i] / full, 1) : 0;
    const kac_moments m = kac_patch_moments(alpha);
    if (m.mass < min_area || scene->n == KAC_SCENE_MAX) return;
    kac_patch_crop(patch, alpha, m);
    float best = INFINITY;
    kac_shape shape = KAC_CIRCLE;
    for (int t = 0; t < j->n_templates; t++) {
        float d2 = 0;
        for (int i = 0; i < PATCH; i++)
            d2 += (patch[i] - j->templates[t].alpha[i]) * (patch[i] - j->templates[t].alpha[i]);
        if (d2 < best) best = d2, shape = j->templates[t].shape;
    }
    scene->objects[scene->n++] =
        (kac_scene_object){shape, color, m.x, m.y, sqrtf(m.mass / j->area[shape]), sqrtf(best) / KAC_JUDGE_PATCH};
}

/* A component, split where it holds two colours in earnest: touching objects. */
static void add_component(kac_scene *scene, const kac_judge *j, const canvas *c, int label) {
    bool mask[N], core[N], part[N];
    int n = 0, count[KAC_N_COLORS] = {0}, total = 0, n_big = 0, top = 0;
    for (int i = 0; i < N; i++) n += mask[i] = c->label[i] == label;
    if (n < 12) return;
    if (erode(core, mask) < 6) memcpy(core, mask, sizeof core);
    for (int i = 0; i < N; i++)
        if (core[i]) count[c->color[i]]++, total++;
    const double enough = fmax(14, 0.2 * total);
    for (int k = 0; k < KAC_N_COLORS; k++) {
        n_big += count[k] > enough;
        if (count[k] > count[top]) top = k;
    }
    if (n_big < 2) {
        add_object(scene, j, c, mask, core, top);
        return;
    }
    for (int k = 0; k < KAC_N_COLORS; k++) {
        if (!(count[k] > enough)) continue;
        for (int i = 0; i < N; i++) part[i] = mask[i] && c->color[i] == k;
        add_object(scene, j, c, part, core, k);
    }
}

void kac_judge_detect(kac_scene *out, const kac_judge *j, const uint8_t *rgb) {
    canvas c;
    measure(&c, rgb);
    label_components(&c);
    *out = (kac_scene){.background = background_of(&c)};
    for (int i = 0; i < N; i++)
        if (c.label[i] == i + 1) add_component(out, j, &c, i + 1);
}
