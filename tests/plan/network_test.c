/* Whole networks on the plan backend: every arena ends and peaks at exactly the byte where the CPU backend does, with the same counts; arenas
 * of the planned size are enough, a page less is not. */
#include "model/clip.h"
#include "model/codec.h"
#include "model/unet.h"
#include "tests/check.h"

/* An input of the run arena, zeroed where it may be touched. */
static kac_status take_input(kac_tensor *t, kac_ctx *c, kac_dtype dtype, int rank, const int64_t *shape) {
    KAC_TRY(kac_take(t, &c->run, dtype, rank, shape));
    if (!c->run.counting) memset(t->data, 0, kac_tensor_bytes(*t));
    return KAC_OK;
}

static kac_status run_unet(kac_ctx *c, int64_t n, int64_t size) {
    kac_unet *u = NULL;
    kac_unet_cond *cond = NULL;
    kac_tensor tokens, x, out = {0};
    double t[16];
    int rows[16];
    for (int i = 0; i < 16; i++) t[i] = 500 + i / 2, rows[i] = i % 2;
    KAC_TRY(kac_unet_load(&u, c, "weights/shapes-64/unet"));
    kac_status s = take_input(&tokens, c, c->dtype, 3, (int64_t[]){2, 77, kac_unet_config_of(u)->cross_dim[0]});
    if (s == KAC_OK) s = take_input(&x, c, KAC_F32, 4, (int64_t[]){n, size, size, 4});
    if (s == KAC_OK) s = kac_unet_condition(&cond, u, c, &(kac_unet_inputs){.tokens = tokens});
    if (s == KAC_OK) s = kac_unet_forward(&out, u, c, x, t, cond, rows);
    kac_unet_cond_free(cond);
    kac_unet_free(u);
    return s;
}

static kac_status run_codec(kac_ctx *c, int64_t n, int64_t size) {
    kac_codec *v = NULL;
    kac_tensor z, image = {0}, moments = {0};
    KAC_TRY(kac_codec_load(&v, c, "weights/shapes-64/vae"));
    kac_status s = take_input(&z, c, KAC_F32, 4, (int64_t[]){n, size, size, kac_codec_config_of(v)->latent_channels});
    if (s == KAC_OK) s = kac_codec_decode_latents(&image, v, c, z);
    if (s == KAC_OK) s = kac_codec_encode(&moments, v, c, image);
    kac_codec_free(v);
    return s;
}

static kac_status run_clip(kac_ctx *c, int64_t n, int64_t n_tokens) {
    kac_clip *m = NULL;
    kac_tensor pixels, image = {0}, text = {0}, logits = {0};
    int32_t ids[1024] = {0};
    KAC_TRY(kac_clip_load(&m, c, "weights/shapes-clip"));
    const kac_clip_config *cfg = kac_clip_config_of(m);
    const int64_t size = cfg->image_size;
    kac_status s = take_input(&pixels, c, KAC_F32, 4, (int64_t[]){n, size, size, cfg->image_channels});
    if (s == KAC_OK) s = kac_clip_image_embeds(&image, m, c, pixels, true);
    if (s == KAC_OK) s = kac_clip_text_embeds(&text, m, c, ids, n, n_tokens, true);
    if (s == KAC_OK) s = kac_clip_logits(&logits, m, c, image, text);
    kac_clip_free(m);
    return s;
}

typedef struct network {
    const char *name;
    kac_status (*run)(kac_ctx *c, int64_t n, int64_t size);
    int64_t n, size;
} network;

static const network networks[] = {
    {"unet 1x16", run_unet, 1, 16}, {"unet 3x16", run_unet, 3, 16}, {"unet 2x11", run_unet, 2, 11},
    {"vae 1x16", run_codec, 1, 16}, {"vae 3x5", run_codec, 3, 5},   {"clip 1", run_clip, 1, 5},
    {"clip 5", run_clip, 5, 16},
};

static void check_arena(const network *net, const kac_arena *planned, const kac_arena *taken) {
    if (!CHECK(planned->used == taken->used && planned->peak == taken->peak))
        printf("  %s, %s arena: planned %zu (peak %zu), taken %zu (peak %zu)\n", net->name, taken->name, planned->used,
               planned->peak, taken->used, taken->peak);
}

static void check_network(const network *net, kac_dtype dtype, int n_threads) {
    kac_ctx plan, cpu;
    if (!CHECK_OK(kac_ctx_open(&plan, &kac_plan_ops, dtype, n_threads, NULL))) return;
    if (!CHECK_OK(kac_ctx_open(&cpu, kac_cpu_ops(), dtype, n_threads, NULL))) return;
    CHECK_OK(net->run(&plan, net->n, net->size));
    CHECK_OK(net->run(&cpu, net->n, net->size));
    check_arena(net, &plan.model, &cpu.model);
    check_arena(net, &plan.run, &cpu.run);
    check_arena(net, &plan.scratch, &cpu.scratch);
    CHECK(plan.counts.ops == cpu.counts.ops && plan.counts.flops == cpu.counts.flops &&
          plan.counts.bytes == cpu.counts.bytes);
    printf("%-12s %-4s model %8zu, run %8zu, scratch %9zu bytes, %5lld ops, %.3g flops\n", net->name,
           dtype == KAC_F32 ? "f32" : "bf16", plan.model.peak, plan.run.peak, plan.scratch.peak,
           (long long)plan.counts.ops, plan.counts.flops);
    kac_ctx_close(&plan);
    kac_ctx_close(&cpu);
}

static void check_exact_fit(const network *net) {
    kac_ctx plan, cpu;
    if (!CHECK_OK(kac_ctx_open(&plan, &kac_plan_ops, KAC_F32, 2, NULL))) return;
    CHECK_OK(net->run(&plan, net->n, net->size));
    kac_ctx_sizes sizes = {plan.model.peak, plan.run.peak, plan.scratch.peak};
    CHECK_OK(kac_ctx_open(&cpu, kac_cpu_ops(), KAC_F32, 2, &sizes));
    CHECK_OK(net->run(&cpu, net->n, net->size));
    kac_ctx_close(&cpu);
    sizes.scratch -= 4096;
    CHECK_OK(kac_ctx_open(&cpu, kac_cpu_ops(), KAC_F32, 2, &sizes));
    CHECK_FAILS(net->run(&cpu, net->n, net->size), KAC_E_MEMORY, "scratch memory is full");
    kac_ctx_close(&cpu);
    sizes.scratch += 4096;
    sizes.model -= 4096;
    CHECK_OK(kac_ctx_open(&cpu, kac_cpu_ops(), KAC_F32, 2, &sizes));
    CHECK_FAILS(net->run(&cpu, net->n, net->size), KAC_E_MEMORY, "model memory is full");
    kac_ctx_close(&cpu);
    kac_ctx_close(&plan);
}

int main(void) {
    for (int i = 0; i < KAC_COUNT_OF(networks); i++) {
        check_network(&networks[i], KAC_F32, 1 + i % 3);
        check_network(&networks[i], KAC_BF16, 1 + i % 2);
    }
    check_exact_fit(&networks[1]);
    check_exact_fit(&networks[3]);
    check_exact_fit(&networks[6]);
    return check_done();
}
