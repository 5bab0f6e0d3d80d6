/* Partial scores of coloured-shapes pictures: how much of a caption holds. */
#include "reward/judge.h"
#include <stdlib.h>

static int n_wanted(const kac_scene_spec *want) {
    return want->n_objects == 1 ? want->count : want->n_objects;
}

/* The free object for which most of what is said of object i holds; −1 when none is free. */
static int best_free(const kac_scene *scene, const bool *taken, const kac_scene_spec *want, int i) {
    int best = -1, most = -1;
    for (int k = 0; k < scene->n; k++) {
        int n_stated;
        const int n_held = taken[k] ? -1 : kac_object_facts(&scene->objects[k], want, i, &n_stated);
        if (n_held > most) best = k, most = n_held;
    }
    return best;
}

double kac_scene_share(const kac_scene *scene, const kac_scene_spec *want) {
    bool taken[KAC_SCENE_MAX] = {false};
    int found[2] = {-1, -1}, stated = 1, held = scene->n == n_wanted(want);
    for (int w = 0; w < n_wanted(want); w++) {
        const int i = want->n_objects == 1 ? 0 : w, k = best_free(scene, taken, want, i);
        int n_stated;
        held += kac_object_facts(k < 0 ? NULL : &scene->objects[k], want, i, &n_stated);
        stated += n_stated;
        if (k >= 0) taken[k] = true;
        if (w < 2) found[w] = k;
    }
    if (want->relation != KAC_REL_NONE) {
        stated++;
        held += found[0] >= 0 && found[1] >= 0 &&
                kac_object_relation(&scene->objects[found[0]], &scene->objects[found[1]]) == want->relation;
    }
    if (want->background != KAC_BG_NONE) stated++, held += scene->background == want->background;
    return (double)held / stated;
}

double kac_scene_count_share(const kac_scene *scene, const kac_scene_spec *want) {
    return 1.0 / (1 + abs(scene->n - n_wanted(want)));
}

double kac_scene_relation_share(const kac_scene *scene, const kac_scene_spec *want) {
    double share = 0;
    for (int a = 0; a < scene->n; a++)
        for (int b = 0; b < scene->n; b++) {
            int n_first, n_second;
            if (a == b || kac_object_facts(&scene->objects[a], want, 0, &n_first) < n_first ||
                kac_object_facts(&scene->objects[b], want, 1, &n_second) < n_second)
                continue;
            const bool stands = kac_object_relation(&scene->objects[a], &scene->objects[b]) == want->relation;
            share = KAC_MAX(share, stands ? 1 : 0.5);
        }
    return share;
}
