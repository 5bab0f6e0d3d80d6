#include "lineage.h"
#include "chart.h"

enum { MAX_DRAWN = 64, MAX_PATHS = 20000, W = 960, LEFT = 34, RIGHT = 34, TOP = 10, BOTTOM = 24 };

static void follow(kac_lineage *l) {
    const int n = l->n;
    for (int j = 1; j < l->n_segments; j++)
        for (int i = 0; i < n; i++) l->eve[j * n + i] = l->eve[(j - 1) * n + l->ancestor[j * n + i]];
    for (int i = 0; i < n; i++) l->alive[(l->n_segments - 1) * n + i] = true;
    for (int j = l->n_segments - 1; j > 0; j--)
        for (int i = 0; i < n; i++)
            if (l->alive[j * n + i]) l->alive[(j - 1) * n + l->ancestor[j * n + i]] = true;
}

kac_status kac_lineage_init(kac_lineage *l, const kac_run_step *steps, int n_steps) {
    *l = (kac_lineage){0};
    if (n_steps == 0) return KAC_OK;
    const int n = l->n = steps[0].n;
    l->first = steps[0].i_step;
    l->last = steps[n_steps - 1].i_step;
    l->n_segments = 1;
    for (int s = 0; s < n_steps; s++) l->n_segments += steps[s].resampled && steps[s].n == n;
    const size_t cells = (size_t)l->n_segments * (size_t)n;
    l->step = kac_alloc((size_t)l->n_segments * sizeof *l->step);
    l->ancestor = kac_alloc(cells * sizeof *l->ancestor);
    l->eve = kac_alloc(cells * sizeof *l->eve);
    l->alive = kac_alloc(cells * sizeof *l->alive);
    if (l->step == NULL || l->ancestor == NULL || l->eve == NULL || l->alive == NULL) return KAC_E_MEMORY;
    l->step[0] = -1;
    for (int i = 0; i < n; i++) l->ancestor[i] = l->eve[i] = i;
    int j = 0;
    for (int s = 0; s < n_steps; s++) {
        if (!steps[s].resampled || steps[s].n != n) continue;
        l->step[++j] = steps[s].i_step;
        for (int i = 0; i < n; i++) l->ancestor[j * n + i] = steps[s].ancestors[i];
    }
    follow(l);
    return KAC_OK;
}

void kac_lineage_free(kac_lineage *l) {
    kac_free(l->step);
    kac_free(l->ancestor);
    kac_free(l->eve);
    kac_free(l->alive);
    *l = (kac_lineage){0};
}

int kac_lineage_segment(const kac_lineage *l, int i_step) {
    int j = 0;
    while (j + 1 < l->n_segments && l->step[j + 1] < i_step) j++;
    return j;
}

int kac_lineage_back(const kac_lineage *l, int i, int segment) {
    for (int j = l->n_segments - 1; j > segment; j--) i = l->ancestor[j * l->n + i];
    return i;
}

static double x_of(const kac_lineage *l, double step) {
    const int span = KAC_MAX(1, l->last - l->first);
    return LEFT + (W - LEFT - RIGHT) * (step - l->first) / span;
}

static void add_segment(kac_text *t, const kac_lineage *l, int j, double row, int best) {
    const int n = l->n, back = best < 0 ? -1 : kac_lineage_back(l, best, j);
    const double bend = KAC_MIN(0.8, 0.04 * KAC_MAX(1, l->last - l->first));
    const double from = j == 0 ? l->first : KAC_MIN(l->step[j] + bend, l->last),
                 to = j + 1 < l->n_segments ? l->step[j + 1] : l->last;
    for (int pass = 0; pass < 2; pass++) /* the dead first, the living over them */
        for (int i = 0; i < n; i++) {
            const bool alive = l->alive[j * n + i];
            if (alive != (pass == 1)) continue;
            const double y = TOP + row * (i + 0.5), x0 = x_of(l, from), x1 = x_of(l, KAC_MAX(from, to));
            kac_text_add(t, "<path class=\"e%d%s%s\" d=\"", l->eve[j * n + i] % KAC_CHART_COLORS, alive ? "" : " dead",
                         i == back ? " best" : "");
            if (j > 0) {
                const double xs = x_of(l, l->step[j]), ya = TOP + row * (l->ancestor[j * n + i] + 0.5),
                             mid = (xs + x0) / 2;
                kac_text_add(t, "M%.1f %.1fC%.1f %.1f %.1f %.1f %.1f %.1f", xs, ya, mid, ya, mid, y, x0, y);
            } else {
                kac_text_add(t, "M%.1f %.1f", x0, y);
            }
            kac_text_add(t, "H%.1f\"/>", x1);
        }
}

void kac_lineage_draw(kac_text *t, const kac_lineage *l, int best) {
    if (l->n < 2 || l->last <= l->first) return;
    if (l->n > MAX_DRAWN || (int64_t)l->n * l->n_segments > MAX_PATHS) {
        kac_text_add(
            t, "<p class=\"note\">The family tree of %d particles over %d resamplings is too large to draw.</p>\n",
            l->n, l->n_segments - 1);
        return;
    }
    const double row = l->n <= 12 ? 20 : l->n <= 32 ? 12 : 7;
    const double height = TOP + row * l->n + BOTTOM;
    kac_text_add(
        t,
        "<figure class=\"tree\"><figcaption>Family tree: step by step, who continues whom. Faint lines died out; the "
        "bold one "
        "leads to the best picture.</figcaption><div class=\"scroll\"><svg viewBox=\"0 0 %d %.0f\" role=\"img\" "
        "aria-label=\"Family tree of the particles\">",
        W, height);
    for (int j = 1; j < l->n_segments; j++)
        kac_text_add(t, "<line class=\"grid\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%d\" y2=\"%.1f\"/>", x_of(l, l->step[j]),
                     x_of(l, l->step[j]), TOP, height - BOTTOM);
    for (int j = 0; j < l->n_segments; j++) add_segment(t, l, j, row, best);
    for (int i = 0; i < l->n; i++) {
        const double y = TOP + row * (i + 0.5);
        if (l->n <= 32)
            kac_text_add(t,
                         "<text class=\"tick\" x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%d</text><text class=\"tick\" "
                         "x=\"%d\" y=\"%.1f\">%d</text>",
                         LEFT - 8, y + 3.5, i, W - RIGHT + 8, y + 3.5, i);
        kac_text_add(t, "<circle class=\"e%d\" r=\"3\" cx=\"%d\" cy=\"%.1f\"/>",
                     l->eve[(l->n_segments - 1) * l->n + i] % KAC_CHART_COLORS, W - RIGHT, y);
    }
    const int every = KAC_MAX(1, (l->last - l->first + 9) / 10);
    for (int s = l->first; s <= l->last; s += every)
        kac_text_add(t, "<text class=\"tick\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">%d</text>", x_of(l, s),
                     height - 6, s);
    kac_text_add(t, "</svg></div></figure>\n");
}
