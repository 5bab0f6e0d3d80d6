/* The judge on scenes that are rendered here: right captions accepted, wrong ones refused. */
#include "base/base.h"
#include "check.h"
#include "reward/judge.h"
#include <kac/rng.h>

static int64_t draw_index;

static double draw(double lo, double hi) {
    const kac_key key = {.seed = 11, .purpose = KAC_PURPOSE_TEST};
    return lo + (hi - lo) * kac_rng_uniform(key, 0, draw_index++);
}

static int draw_int(int n) {
    return (int)draw(0, n);
}

/* Antialiased shapes on a flat background. */
static void render(uint8_t *rgb, const kac_scene *s) {
    static const uint8_t gray[] = {0, 248, 8, 128, 128};
    for (int y = 0; y < KAC_JUDGE_EDGE; y++)
        for (int x = 0; x < KAC_JUDGE_EDGE; x++) {
            float v[3] = {gray[s->background], gray[s->background], gray[s->background]};
            if (s->background == KAC_BG_GRADIENT) v[0] = v[1] = v[2] = 80 + 2.2f * (float)x;
            for (int i = 0; i < s->n; i++) {
                const kac_scene_object *o = &s->objects[i];
                const float d =
                    kac_shape_distance(o->shape, ((float)x + 0.5f - o->x) / o->r, ((float)y + 0.5f - o->y) / o->r) *
                    o->r;
                const float a = fminf(fmaxf(0.5f - d, 0), 1);
                for (int c = 0; c < 3; c++) v[c] = v[c] * (1 - a) + (float)kac_color_rgb[o->color][c] * a;
            }
            for (int c = 0; c < 3; c++) rgb[(y * KAC_JUDGE_EDGE + x) * 3 + c] = (uint8_t)(v[c] + 0.5f);
        }
}

/* n objects that do not touch; false when no place was found. */
static bool draw_scene(kac_scene *s, int n) {
    *s = (kac_scene){.background = (kac_background)(1 + draw_int(4))};
    while (s->n < n) {
        const float r = (float)(n == 1 ? draw(10, 18) : n == 2 ? draw(10, 13) : draw(9.2, 10.8)), edge = r * 1.1f + 1;
        kac_scene_object o = {(kac_shape)draw_int(KAC_N_SHAPES),
                              draw_int(KAC_N_COLORS),
                              (float)draw(edge, 64 - edge),
                              (float)draw(edge, 64 - edge),
                              r,
                              0};
        for (int i = 0; i < s->n; i++)
            if (hypot(o.x - s->objects[i].x, o.y - s->objects[i].y) < 1.08 * (r + s->objects[i].r) + 2) return false;
        s->objects[s->n++] = o;
    }
    return true;
}

static bool judge_says(const kac_judge *j, const uint8_t *rgb, const char *caption) {
    kac_scene seen;
    kac_scene_spec want;
    kac_judge_detect(&seen, j, rgb);
    return kac_scene_parse(&want, caption) && kac_scene_clean(&seen) && kac_scene_satisfies(&seen, &want);
}

static void test_rendered(const kac_judge *j) {
    static const char *const relations[] = {"above", "below", "left of", "right of"};
    static const char *const grounds[] = {"", "white", "black", "gray", "gradient"};
    uint8_t rgb[KAC_JUDGE_EDGE * KAC_JUDGE_EDGE * 3];
    int n = 0, right = 0, fooled = 0;
    while (n < 600) {
        kac_scene s;
        if (!draw_scene(&s, 1 + draw_int(2))) continue;
        const kac_scene_object *a = &s.objects[0], *b = &s.objects[1];
        char caption[160], wrong[160];
        const char *first = kac_shape_names[a->shape], *color = kac_color_names[a->color];
        if (s.n == 1) {
            snprintf(caption, sizeof caption, "a %s %s on a %s background", color, first, grounds[s.background]);
            snprintf(wrong, sizeof wrong, "a %s %s", kac_color_names[(a->color + 1) % KAC_N_COLORS], first);
        } else {
            const float dx = a->x - b->x, dy = a->y - b->y;
            if (a->shape == b->shape || a->color == b->color ||
                fmaxf(fabsf(dx), fabsf(dy)) < 1.3f * fminf(fabsf(dx), fabsf(dy)))
                continue;
            const int rel = fabsf(dx) > fabsf(dy) ? (dx < 0 ? 2 : 3) : (dy < 0 ? 0 : 1);
            snprintf(caption, sizeof caption, "a %s %s %s a %s %s", color, first, relations[rel],
                     kac_color_names[b->color], kac_shape_names[b->shape]);
            snprintf(wrong, sizeof wrong, "a %s %s %s a %s %s", color, first, relations[rel ^ 1],
                     kac_color_names[b->color], kac_shape_names[b->shape]);
        }
        render(rgb, &s);
        n++;
        right += judge_says(j, rgb, caption);
        fooled += judge_says(j, rgb, wrong);
    }
    printf("judge: right on %d of %d scenes, fooled by %d wrong captions\n", right, n, fooled);
    CHECK(right >= 0.98 * n);
    CHECK(fooled == 0);
}

static void test_captions(void) {
    kac_scene_spec s;
    CHECK(kac_scene_parse(&s, "Three blue STARS."));
    CHECK(s.n_objects == 1 && s.count == 3 && s.objects[0].shape == KAC_STAR && s.objects[0].color == 2);
    CHECK(kac_scene_parse(&s, "a red circle to the left of a small cyan cross on a grey background"));
    CHECK(s.n_objects == 2 && s.relation == KAC_REL_LEFT && s.objects[1].size == KAC_SIZE_SMALL &&
          s.background == KAC_BG_GRAY);
    CHECK(kac_scene_parse(&s, "two crosses"));
    CHECK(s.count == 2 && s.objects[0].shape == KAC_CROSS && s.objects[0].color == -1);
    CHECK(!kac_scene_parse(&s, "a cat on a white background"));
    CHECK(!kac_scene_parse(&s, ""));
    CHECK(!kac_scene_parse(&s, "\xff\xfe red"));
}

static void test_strictness(const kac_judge *j) {
    uint8_t rgb[KAC_JUDGE_EDGE * KAC_JUDGE_EDGE * 3];
    kac_scene s = {.n = 3, .background = KAC_BG_WHITE};
    for (int i = 0; i < 3; i++) s.objects[i] = (kac_scene_object){KAC_SQUARE, 0, 13 + 19 * (float)i, 20, 9, 0};
    render(rgb, &s);
    CHECK(judge_says(j, rgb, "three red squares"));
    CHECK(!judge_says(j, rgb, "two red squares"));
    CHECK(!judge_says(j, rgb, "four red squares"));
    CHECK(!judge_says(j, rgb, "three blue squares"));
    CHECK(!judge_says(j, rgb, "three red circles"));
    CHECK(!judge_says(j, rgb, "three red squares on a black background"));
    s = (kac_scene){.n = 1, .background = KAC_BG_GRAY, .objects = {{KAC_HEART, 7, 32, 32, 17, 0}}};
    render(rgb, &s);
    CHECK(judge_says(j, rgb, "a large pink heart"));
    CHECK(!judge_says(j, rgb, "a small pink heart"));
    memset(rgb, 0, sizeof rgb);
    CHECK(!judge_says(j, rgb, "a red circle"));
    for (size_t i = 0; i < sizeof rgb; i++) rgb[i] = (uint8_t)draw(0, 256);
    CHECK(!judge_says(j, rgb, "a red circle"));
}

int main(void) {
    kac_judge j;
    if (!CHECK_OK(kac_judge_init(&j))) return check_done();
    test_captions();
    test_rendered(&j);
    test_strictness(&j);
    kac_judge_free(&j);
    return check_done();
}
