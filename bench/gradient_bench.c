/* Times the way from latents to a reward and its gradient back, for bench/compare_gradient.py.
 *
 *     bench.gradient VAE REWARD THREADS REPEAT IN.safetensors OUT.safetensors ["PROMPT"]
 *
 * IN: "latents" [n, h, w, C] f32. OUT: "values" [n], "d_latents". Prints {"repeat_ms": […]}, the first pass included. */
#include "io/safetensors.h"
#include "io/weights.h"
#include "run/picture_gradient.h"
#include <stdio.h>
#include <stdlib.h>

enum { MAX_PICTURES = 64 };

static const kac_option_spec table[] = {KAC_REWARD_OPTIONS("rewards", "clip"), {.name = NULL}};

typedef struct bench {
    kac_ctx c;
    kac_reward_set set;
    kac_codec *codec;
    kac_weights in;
    kac_tensor latents, d;
    double values[3 * MAX_PICTURES];
} bench;

static kac_status open_bench(bench *b, char **argv, const char *const *prompt) {
    kac_options *o = kac_options_create(table);
    const char *const texts[] = {argv[2]};
    KAC_TRY(kac_ctx_open(&b->c, kac_cpu_ops(), KAC_F32, (int)strtol(argv[3], NULL, 10), NULL));
    KAC_TRY(kac_codec_load(&b->codec, &b->c, argv[1]));
    KAC_TRY(kac_reward_set_open(&b->set, &b->c, texts, 1, o));
    KAC_TRY(kac_reward_set_prepare(&b->set, prompt, 1));
    kac_options_destroy(o);
    KAC_TRY(kac_weights_open(&b->in, argv[5]));
    kac_tensor file;
    KAC_TRY(kac_weights_find(&b->in, "latents", &file));
    if (file.rank != 4 || file.shape[0] > MAX_PICTURES)
        return KAC_FAIL(KAC_E_SHAPE, "\"latents\" must be [1 … %d, h, w, C]", (int)MAX_PICTURES);
    KAC_TRY(kac_take(&b->latents, &b->c.run, KAC_F32, 4, file.shape));
    KAC_TRY(kac_take(&b->d, &b->c.run, KAC_F32, 4, file.shape));
    return kac_copy(&b->c, &b->latents, file);
}

static kac_status run_bench(bench *b, int repeat, const char *out) {
    const int prompt[MAX_PICTURES] = {0};
    const int64_t n = b->latents.shape[0];
    float values[MAX_PICTURES];
    printf("{\"repeat_ms\": [");
    for (int i = 0; i < repeat; i++) {
        const double start_ms = kac_now_ms();
        KAC_TRY(kac_picture_gradient(&b->set, &b->c, b->codec, b->latents, prompt, KAC_BALANCE_PLAIN, b->values, b->d));
        printf("%s%.3f", i == 0 ? "" : ", ", kac_now_ms() - start_ms);
    }
    printf("]}\n");
    for (int64_t i = 0; i < n; i++) values[i] = (float)b->values[3 * i];
    const kac_st_item items[] = {{"values", kac_tensor_make(values, KAC_F32, n)}, {"d_latents", b->d}};
    return kac_st_write(out, items, 2, NULL, 0);
}

int main(int argc, char **argv) {
    bench b = {.codec = NULL};
    if (argc < 7) return fprintf(stderr, "usage: bench.gradient VAE REWARD THREADS REPEAT IN OUT [PROMPT]\n"), 2;
    const char *const prompt[] = {argc > 7 ? argv[7] : ""};
    kac_status s = open_bench(&b, argv, prompt);
    if (s == KAC_OK) s = run_bench(&b, (int)strtol(argv[4], NULL, 10), argv[6]);
    if (s != KAC_OK) fprintf(stderr, "%s\n", kac_error());
    kac_weights_close(&b.in);
    kac_reward_set_close(&b.set);
    kac_codec_free(b.codec);
    kac_ctx_close(&b.c);
    return s != KAC_OK;
}
