/* Plug-ins that fail: PLUGIN_BAD says at what, the argument of the loaded one at what else. */
#include <kac/reward_plugin.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static int bad_open(void **self, const char *argument, char *error, size_t n_error) {
    static char how[32];
    snprintf(how, sizeof how, "%s", argument);
    *self = how;
    if (strcmp(argument, "open") == 0) snprintf(error, n_error, "no licence\nsecond line");
    return strcmp(argument, "open") == 0 || strcmp(argument, "silent") == 0;
}

static int bad_score(void *self, const kac_plugin_picture *pictures, int n, double *rewards, char *error,
                     size_t n_error) {
    const char *how = self;
    for (int i = 0; i < n; i++) rewards[i] = pictures[i].prompt[0];
    if (strcmp(how, "nan") == 0) rewards[n - 1] = NAN;
    if (strcmp(how, "inf") == 0) rewards[0] = INFINITY;
    if (strcmp(how, "left") == 0) return rewards[0] = NAN, 0;
    if (strcmp(how, "long") == 0) memset(error, 'x', n_error);
    if (strcmp(how, "score") == 0) snprintf(error, n_error, "out of paint");
    return strcmp(how, "score") == 0 ? 3 : strcmp(how, "long") == 0 ? 1 : 0;
}

#if PLUGIN_BAD == 1
#define ABI 99
#else
#define ABI KAC_REWARD_PLUGIN_ABI
#endif
#if PLUGIN_BAD == 2
#define SCORE NULL
#else
#define SCORE bad_score
#endif

const kac_reward_plugin plugin_bad = {.abi = ABI, .needs_prompt = 1, .open = bad_open, .score = SCORE};
int (*const plugin_bad_used)(void *, const kac_plugin_picture *, int, double *, char *, size_t) = bad_score;
#if PLUGIN_BAD != 3
KAC_REWARD_PLUGIN_EXPORT(PLUGIN_BAD == 4 ? NULL : &plugin_bad)
#endif
