/* The rewards of one command: the single ones and how they are combined.
 *
 *     kac_reward_set s;
 *     KAC_TRY(kac_reward_set_open(&s, c, texts, n, options));   // options: KAC_REWARD_OPTIONS
 *     KAC_TRY(kac_reward_set_prepare(&s, prompts, n_prompts));
 *     for each reward i: kac_image_reward_score(s.parts[i], …);   then kac_mix_observe, kac_mix_total of s.mix */
#ifndef KAC_REWARD_SET_H
#define KAC_REWARD_SET_H

#include "reward/image_reward.h"
#include "reward/mix.h"
#include <kac/options.h>

/* Rows of the option table of every command that scores pictures; `what` and `otherwise` are literals. */
/* clang-format off */
#define KAC_REWARD_OPTIONS(what, otherwise)                                                                            \
    {"reward", 0, KAC_OPT_TEXT, NULL, .meta = "NAME[=PATH][:WEIGHT][,SHAPING]", .repeatable = true,                    \
     .help = what ": " KAC_REWARD_NAMES "; may be given several times (default: " otherwise ")"},                      \
    {"combine", 0, KAC_OPT_TEXT, "sum", .meta = "HOW",                                                                 \
     .help = "several rewards into one: sum, min, mean-std=K, product, … (see below)"},                                \
    {"reward-timeout", 0, KAC_OPT_REAL, "300", 0.01, 1e6, .meta = "SECONDS",                                           \
     .help = "how long reward command=… may take to start, and for each batch of pictures"}
/* clang-format on */

/* For --help, after the options. */
#define KAC_REWARD_NOTES                                                                                               \
    "rewards:\n"                                                                                                       \
    "  NAME or NAME=PATH, then :WEIGHT (1) and shapings, applied left to right before the weight:\n"                   \
    "    ,target=T  -|r-T|              ,hinge=T    min(r-T, 0)          ,clamp=LO/HI\n"                               \
    "    ,z=MEAN/STD  (r-MEAN)/STD      ,z          by the mean and deviation of all scored so far\n"                  \
    "    ,sigmoid=REF/SCALE             ,tanh=C/SCALE                    ,log  ,exp\n"                                 \
    "  A path that ends like a weight or a shaping is put in quotes: --reward 'command=\"score.py a:2\":3'.\n"         \
    "  plugin='FILE.so ARGUMENT': a shared library, see kac/reward_plugin.h. command='PROGRAM ARGUMENTS': any "        \
    "program\n"                                                                                                        \
    "  that speaks JSON lines; its words are split like a shell's, but no shell runs. When ready it says\n"            \
    "    {\"protocol\": 1}        (\"images\": \"png_base64\" or \"rgb_base64\" in it: pictures in the line, no "      \
    "files)\n"                                                                                                         \
    "  and answers {\"id\": 7, \"images\": [{\"path\": \"a.png\", \"prompt\": \"a cat\"}]} with {\"id\": 7, "          \
    "\"rewards\": [0.3]}.\n"                                                                                           \
    "  --combine takes the weighted rewards v (product and geometric: weights are exponents):\n"                       \
    "    sum (default); mean, min, max, softmin=T; an ensemble's disagreement as uncertainty: mean-std=K,\n"           \
    "    mean-var=K, robust=L (L mean + (1-L) min), shrink=K/REF (REF + (mean-REF) / (1 + K var));\n"                  \
    "    worst-group=FILE, mean-group=FILE: {\"ann\": {\"clip\": 2}, \"ben\": {\"jpeg\": -1, \"share\": 3}}\n"

typedef struct kac_reward_set {
    kac_image_reward *parts[KAC_MAX_REWARDS];
    const kac_reward_spec *specs[KAC_MAX_REWARDS];
    int n;
    kac_mix *mix; /* NULL when n is 0 */
} kac_reward_set;

/* Opens every reward (kac_image_reward_expand is the caller's) and the combination that --combine names. On failure nothing is left open. */
kac_status kac_reward_set_open(kac_reward_set *s, kac_ctx *c, const char *const *texts, int n, const kac_options *o);
void kac_reward_set_close(kac_reward_set *s); /* a cleared one is fine */

bool kac_reward_set_needs_prompt(const kac_reward_set *s);
kac_status kac_reward_set_prepare(kac_reward_set *s, const char *const *prompts, int n_prompts);

/* values [n, s->n + 2]: from single rewards to the combined one and its uncertainty, of pictures scored together; running means see all of
 * them first. Nothing in a plan run. */
kac_status kac_reward_set_combine(kac_reward_set *s, double *values, int n);

/* True when totals are the values of a single reward as they are. */
bool kac_reward_set_is_plain(const kac_reward_set *s);

#endif
