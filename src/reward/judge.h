/* The judge of coloured-shapes pictures: not a network, a program. colours → components → shape templates → count, colour, size, relation,
 * background, compared strictly with what the caption says.
 *
 *     kac_judge judge;                                    // templates, ~0.3 MB
 *     KAC_TRY(kac_judge_init(&judge));
 *     kac_scene_spec want;
 *     if (kac_scene_parse(&want, "a red circle above a blue square")) {
 *         kac_scene seen;
 *         kac_judge_detect(&seen, &judge, rgb);           // 64 × 64
 *         bool right = kac_scene_clean(&seen) && kac_scene_satisfies(&seen, &want);
 *     }
 *
 * The same procedure as tools/train_shapes/verifier.py. */
#ifndef KAC_JUDGE_H
#define KAC_JUDGE_H

#include "base/base.h"

enum { KAC_JUDGE_EDGE = 64, KAC_SCENE_MAX = 64, KAC_N_SHAPES = 8, KAC_N_COLORS = 8, KAC_JUDGE_PATCH = 24 };

typedef enum kac_shape {
    KAC_CIRCLE,
    KAC_SQUARE,
    KAC_TRIANGLE,
    KAC_STAR,
    KAC_HEART,
    KAC_CROSS,
    KAC_DIAMOND,
    KAC_RING
} kac_shape;
typedef enum kac_relation { KAC_REL_NONE, KAC_REL_ABOVE, KAC_REL_BELOW, KAC_REL_LEFT, KAC_REL_RIGHT } kac_relation;
typedef enum kac_background { KAC_BG_NONE, KAC_BG_WHITE, KAC_BG_BLACK, KAC_BG_GRAY, KAC_BG_GRADIENT } kac_background;
typedef enum kac_object_size { KAC_SIZE_ANY, KAC_SIZE_SMALL, KAC_SIZE_LARGE } kac_object_size;

extern const char *const kac_shape_names[KAC_N_SHAPES];
extern const char *const kac_color_names[KAC_N_COLORS];
extern const uint8_t kac_color_rgb[KAC_N_COLORS][3];

/* What a picture shows. */
typedef struct kac_scene_object {
    kac_shape shape;
    int color;
    float x, y, r; /* centre and radius in pixels, y down */
    float error;   /* rms distance to the nearest shape template, 0 … 1 */
} kac_scene_object;

typedef struct kac_scene {
    int n;
    kac_scene_object objects[KAC_SCENE_MAX];
    kac_background background;
} kac_scene;

/* What a caption says. */
typedef struct kac_scene_spec {
    int n_objects; /* kinds of objects named */
    struct {
        kac_shape shape;
        int color; /* −1: any */
        kac_object_size size;
    } objects[KAC_SCENE_MAX];
    int count;             /* of the object, when one kind is named */
    kac_relation relation; /* of the first to the second */
    kac_background background;
} kac_scene_spec;

/* False when the caption names no shape. Case and punctuation do not matter. */
bool kac_scene_parse(kac_scene_spec *out, const char *caption);

/* Exactly the objects of the caption and no others. */
bool kac_scene_satisfies(const kac_scene *scene, const kac_scene_spec *want);
/* Every object is close enough to its template. */
bool kac_scene_clean(const kac_scene *scene);

/* How many of the things that the caption says of its object i (shape, colour, size) hold for `o`; NULL: none. *n_stated: how many it
 * says. */
int kac_object_facts(const kac_scene_object *o, const kac_scene_spec *want, int i, int *n_stated);
/* Where a stands as seen from b. */
kac_relation kac_object_relation(const kac_scene_object *a, const kac_scene_object *b);

/* ---- partial scores, 0 … 1 ---- */
/* The share of what the caption states that holds: the number of objects; shape, colour and size of each, by the object that fits best
 * and is still free; the relation of the two so found; the background. */
double kac_scene_share(const kac_scene *scene, const kac_scene_spec *want);
/* 1 / (1 + |objects seen − objects said|). */
double kac_scene_count_share(const kac_scene *scene, const kac_scene_spec *want);
/* 1: both objects are there and stand as said; 1/2: both are there; else 0. */
double kac_scene_relation_share(const kac_scene *scene, const kac_scene_spec *want);

/* Signed distance of a shape of radius 1 at the origin, negative inside; x right, y down. */
float kac_shape_distance(kac_shape shape, float x, float y);

typedef struct kac_judge_template {
    kac_shape shape;
    float alpha[KAC_JUDGE_PATCH * KAC_JUDGE_PATCH];
} kac_judge_template;

typedef struct kac_judge {
    kac_judge_template *templates; /* owned */
    int n_templates;
    float area[KAC_N_SHAPES]; /* of a shape of radius 1 */
} kac_judge;

kac_status kac_judge_init(kac_judge *j);
void kac_judge_free(kac_judge *j);

/* rgb [64, 64, 3]. About 10 ms; no allocation (≈ 150 kB of stack). */
void kac_judge_detect(kac_scene *out, const kac_judge *j, const uint8_t *rgb);

#endif
