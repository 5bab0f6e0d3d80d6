/* A reward in C: how red a picture is.
 *
 *     cc -shared -fPIC -O2 redness_plugin.c -o redness.so
 *     kac generate "a circle" --reward plugin=./redness.so
 *     kac generate "a circle" --reward 'plugin=./redness.so 2'      # its argument: how much green and blue count */
#include <kac/reward_plugin.h>
#include <stdio.h>
#include <stdlib.h>

static int redness_open(void **self, const char *argument, char *error, size_t n_error) {
    double *penalty = malloc(sizeof *penalty);
    char *end;
    if (penalty == NULL) return 1;
    *penalty = argument[0] == '\0' ? 1 : strtod(argument, &end);
    if (argument[0] != '\0' && *end != '\0') {
        snprintf(error, n_error, "wants a number, not \"%s\"", argument);
        free(penalty);
        return 1;
    }
    *self = penalty;
    return 0;
}

static int redness_score(void *self, const kac_plugin_picture *pictures, int n, double *rewards, char *error, size_t n_error) {
    const double penalty = *(const double *)self;
    (void)error, (void)n_error;
    for (int i = 0; i < n; i++) {
        const long n_pixels = (long)pictures[i].width * pictures[i].height;
        double sum = 0;
        for (long k = 0; k < n_pixels; k++) {
            const unsigned char *p = pictures[i].rgb + 3 * k;
            sum += p[0] - penalty * (p[1] + p[2]) / 2;
        }
        rewards[i] = sum / (255.0 * (double)n_pixels);
    }
    return 0;
}

static void redness_close(void *self) {
    free(self);
}

static const kac_reward_plugin plugin = {.abi = KAC_REWARD_PLUGIN_ABI,
                                         .open = redness_open,
                                         .score = redness_score,
                                         .close = redness_close};
KAC_REWARD_PLUGIN_EXPORT(&plugin)
