/* The text of a reward: NAME[=PATH][:WEIGHT][,SHAPING…].
 *
 *     clip                           a name
 *     clip=models/clip:2             … of a model at a path, twice as important
 *     jpeg:-0.01,target=-0.2         … shaped, left to right (shaping.h); the weight may stand behind the shapings too
 *     command="python3 s.py a:2":3   a path that would be misread (it ends in :NUMBER or ,SHAPING) is put in quotes
 *
 * A path may hold ':' '=' and ','; only what ends the text and reads as a weight or as a shaping is taken from it. */
#ifndef KAC_REWARD_SPEC_H
#define KAC_REWARD_SPEC_H

#include "reward/shaping.h"

enum { KAC_MAX_SHAPINGS = 8 };

typedef struct kac_reward_spec {
    char *name;                             /* "clip" */
    char *path;                             /* NULL: none given; may be "" */
    char *label;                            /* "clip=models/clip" or "clip", for reports */
    double weight;                          /* finite, not 0 */
    kac_shaping shapings[KAC_MAX_SHAPINGS]; /* applied in this order, before the weight */
    int n_shapings;
} kac_reward_spec;

/* KAC_E_USAGE. On failure nothing is left to free. */
kac_status kac_reward_spec_parse(kac_reward_spec *out, const char *text);
void kac_reward_spec_free(kac_reward_spec *s);

/* Fails with "there is no reward …", the nearest name and all of them. */
kac_status kac_reward_spec_unknown(const char *name, const char *const *names);

#endif
