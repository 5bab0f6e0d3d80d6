/* LoRA files mixed: the change of the mixture is the mixture of the changes, whatever the formats. */
#include "check.h"
#include "run/lora_mix.h"
#include "util/temp.h"
#include <stdlib.h>

static const char *out;

/* The change of a layer as it is used, [n_out, n_in · kh · kw], added to `sum` times w; its size. */
static int64_t add_change(double *sum, const kac_lora_module *m, double w) {
    const int64_t n_row = m->n_in * m->kh * m->kw;
    double *down = kac_alloc((size_t)(m->rank * n_row) * sizeof *down),
           *up = kac_alloc((size_t)(m->n_out * m->rank) * sizeof *up);
    kac_lora_down_values(down, m);
    kac_lora_up_values(up, m);
    for (int64_t o = 0; o < m->n_out; o++)
        for (int64_t r = 0; r < m->rank; r++)
            for (int64_t i = 0; i < n_row; i++)
                sum[o * n_row + i] += w * m->scale * up[o * m->rank + r] * down[r * n_row + i];
    kac_free(down), kac_free(up);
    return m->n_out * n_row;
}

static double difference(const kac_lora *mixture, const kac_lora *files, const double *weights, int n) {
    double worst = 0;
    for (int k = 0; k < mixture->n_modules; k++) {
        const kac_lora_module *m = &mixture->modules[k];
        double *d = kac_alloc((size_t)(m->n_out * m->n_in * m->kh * m->kw) * sizeof *d), top = 1e-12, off = 0;
        for (int f = 0; f < n; f++) {
            const kac_lora_module *o = kac_lora_find(&files[f], m->part, m->flat);
            if (o != NULL) add_change(d, o, weights[f]);
        }
        const int64_t size = m->n_out * m->n_in * m->kh * m->kw;
        for (int64_t i = 0; i < size; i++) top = fmax(top, fabs(d[i]));
        add_change(d, m, -1);
        for (int64_t i = 0; i < size; i++) off = fmax(off, fabs(d[i]));
        worst = fmax(worst, off / top);
        kac_free(d);
    }
    return worst;
}

static void mixes(const char *a, const char *b, double wa, double wb, kac_lora_format format) {
    const char *const names[] = {a, b};
    const double weights[] = {wa, wb};
    kac_lora files[2], mixture;
    kac_lora_mix_result r;
    const kac_lora_mix_args args = {.files = names, .weights = weights, .n = 2, .format = format, .out = out};
    if (!CHECK_OK(kac_lora_mix(&r, &args))) return;
    CHECK_OK(kac_lora_open(&files[0], a)), CHECK_OK(kac_lora_open(&files[1], b)),
        CHECK_OK(kac_lora_open(&mixture, out));
    CHECK(mixture.format == format && mixture.n_modules == r.n_modules);
    CHECK(mixture.n_modules == files[0].n_modules + files[1].n_modules - r.n_shared);
    CHECK_NEAR(difference(&mixture, files, weights, 2), 0, 1e-6);
    kac_lora_close(&files[0]), kac_lora_close(&files[1]), kac_lora_close(&mixture);
}

static void averages_factors(const char *a) {
    const char *const names[] = {a, a};
    kac_lora_mix_result r;
    kac_lora file, mixture;
    kac_lora_mix_args args = {.files = names,
                              .weights = (double[]){0.75, 0.25},
                              .n = 2,
                              .format = KAC_LORA_KOHYA,
                              .out = out,
                              .factors = true};
    CHECK_OK(kac_lora_mix(&r, &args));
    CHECK_OK(kac_lora_open(&file, a)), CHECK_OK(kac_lora_open(&mixture, out));
    CHECK(mixture.modules[0].rank == file.modules[0].rank);
    CHECK_NEAR(difference(&mixture, &file, (double[]){1}, 1), 0, 1e-6);
    kac_lora_close(&mixture);
    args.weights = (double[]){0.5, 0}; /* both factors halved: a quarter of the change */
    CHECK_OK(kac_lora_mix(&r, &args));
    CHECK_OK(kac_lora_open(&mixture, out));
    CHECK_NEAR(difference(&mixture, &file, (double[]){0.25}, 1), 0, 1e-6);
    kac_lora_close(&mixture), kac_lora_close(&file);
}

int main(void) {
    out = temp_path("mix.safetensors");
    const char *unet = "tests/golden/lora/files/kohya.safetensors",
               *other = "tests/golden/lora/files/pipeline.safetensors";
    mixes(unet, unet, 0.5, 0.5, KAC_LORA_KOHYA);
    mixes(unet, other, 0.3, -1.2, KAC_LORA_KOHYA);
    mixes(other, unet, 2, 0, KAC_LORA_PEFT);
    averages_factors(unet);
    const char *const missing[] = {unet, "none.safetensors"};
    kac_lora_mix_result r;
    kac_lora_mix_args args = {
        .files = missing, .weights = (double[]){1, 1}, .n = 2, .format = KAC_LORA_KOHYA, .out = out};
    CHECK_FAILS(kac_lora_mix(&r, &args), KAC_E_IO, "none.safetensors");
    return check_done();
}
