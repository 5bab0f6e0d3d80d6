#include "run/size_options.h"
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

enum { MAX_SIDE = 1 << 20 };

/* Two whole numbers with `between` between them, into out[0] and out[1]; untouched when the option is not given. */
static kac_status read_pair(int64_t out[2], const kac_options *o, const char *name, char between, int64_t lo) {
    if (!kac_options_given(o, name)) return KAC_OK;
    const char *text = kac_options_text(o, name), *at = text;
    for (int i = 0; i < 2; i++) {
        char *end;
        const long long v = strtoll(at, &end, 10);
        if (!isdigit((unsigned char)*at) || *end != (i == 0 ? between : '\0') || v < lo || v > MAX_SIDE)
            return KAC_FAIL(KAC_E_USAGE, "--%s takes %s, not \"%s\"", name,
                            between == 'x' ? "WIDTHxHEIGHT" : "LEFT,TOP", text);
        out[i] = v;
        at = end + 1;
    }
    return KAC_OK;
}

static void put(int64_t out[2], const int64_t pair[2]) { /* the network counts height first, people width */
    out[0] = pair[1];
    out[1] = pair[0];
}

kac_status kac_size_options_read(kac_latent_options *out, const kac_options *o) {
    static const struct {
        const char *name;
        char between;
    } keys[] = {{"original-size", 'x'}, {"target-size", 'x'}, {"crop-top-left", ','}};
    for (int i = 0; i < KAC_COUNT_OF(keys); i++) {
        char negative[32];
        snprintf(negative, sizeof negative, "negative-%s", keys[i].name);
        int64_t pair[2] = {0, 0};
        kac_latent_sizes *s[2] = {&out->sizes, &out->negative_sizes};
        for (int k = 0; k < 2; k++) {
            KAC_TRY(read_pair(pair, o, k == 0 ? keys[i].name : negative, keys[i].between, keys[i].between == 'x'));
            put(i == 0 ? s[k]->original : i == 1 ? s[k]->target : s[k]->crop, pair);
        }
    }
    out->sizes.score = kac_options_real(o, "aesthetic-score");
    out->negative_sizes.score = kac_options_real(o, "negative-aesthetic-score");
    return KAC_OK;
}
