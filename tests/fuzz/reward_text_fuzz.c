/* Texts that say what to reward, commands that are split into words, graphs that hold a prompt: each input as all three. */
#include "base/child.h"
#include "fuzz/fuzz.h"
#include "io/picture_prompt.h"
#include "reward/reward_spec.h"
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    char *text = kac_alloc(n + 1);
    if (text == NULL) return 0;
    if (n > 0) memcpy(text, data, n);
    kac_reward_spec spec;
    if (kac_reward_spec_parse(&spec, text) == KAC_OK) {
        KAC_ASSERT(spec.weight == spec.weight && spec.weight != 0 && spec.name[0] != '\0');
        double r = 0.5, slope;
        for (int i = 0; i < spec.n_shapings; i++) (void)kac_shaping_apply(&r, &slope, &spec.shapings[i], r);
        kac_reward_spec_free(&spec);
    }
    char **words;
    if (kac_command_words(&words, text) == KAC_OK) {
        size_t n_all = 0;
        for (int i = 0; words[i] != NULL; i++) n_all += strlen(words[i]) + 1;
        KAC_ASSERT(n_all <= n + 1);
        kac_free(words);
    }
    kac_free(kac_comfy_prompt(text));
    kac_free(text);
    return 0;
}
