/* One tuning step as compare_tune.py times it: sample, score, gradient back through decoder, solver and network, new values packed. Also
 * the reward's gradient alone. Prints JSON.
 *
 *     bench.tune MODEL REWARD FOLDER [batch steps rows cfg rank width threads repeats keep]
 *
 * In FOLDER it leaves what PyTorch needs to do the same and to be compared: start.safetensors (x, the first states), lora.safetensors (values),
 * grads.safetensors (of the mean of minus the reward, under the LoRA's keys). */
#include "io/safetensors.h"
#include "run/latent_trainee.h"
#include "train/chain.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_STEPS = 1000, MAX_REPEATS = 100 };

static const char *const prompts[] = {"a red circle left of a blue square"};
static const kac_option_spec table[] = {KAC_REWARD_OPTIONS("rewards", "none"), {.name = NULL}};

typedef struct bench {
    const char *model, *reward, *folder;
    int batch, steps, rows, rank, width, threads, repeats;
    bool keep_all;
    double cfg;
    kac_ctx c;
    kac_parameters *p;
    kac_pipeline pipeline;
    kac_solver solver;
    kac_options *options;
    kac_reward_set rewards;
    kac_trainee t;
    kac_chain chain;
    int *prompt;
    double *totals;
    float *d_x0;
    double step_ms[MAX_REPEATS], sample_ms[MAX_REPEATS], reward_ms[MAX_REPEATS];
} bench;

static kac_status open_all(bench *b) {
    const kac_parameters_spec spec = {
        .rank = b->rank, .alpha = b->rank, .targets = "to_q,to_k,to_v,to_out.0", .seed = 1};
    const kac_solver_options so = {.kind = KAC_SOLVER_DDIM, .n_steps = b->steps, .eta = 0};
    KAC_TRY(kac_ctx_open(&b->c, kac_cpu_ops(), KAC_F32, b->threads, NULL));
    b->c.keep_all = b->keep_all;
    KAC_TRY(kac_parameters_create(&b->p, &spec));
    KAC_TRY(kac_pipeline_open(&b->pipeline, &b->c, b->model, &(kac_pipeline_options){.parameters = b->p}));
    KAC_TRY(kac_solver_init(&b->solver, &b->pipeline.schedule, &so));
    b->options = kac_options_create(table);
    if (b->options == NULL) return KAC_E_MEMORY;
    KAC_TRY(kac_reward_set_open(&b->rewards, &b->c, &b->reward, 1, b->options));
    const int64_t size = b->width > 0 ? b->width : b->pipeline.width;
    const kac_latent_trainee_options o = {
        .prompts = prompts, .n_prompts = 1, .text = {.width = size, .height = size}, .batch = b->batch};
    KAC_TRY(kac_latent_trainee_open(&b->t, &b->c, &b->pipeline, &b->solver, b->p, &b->rewards, &o));
    b->prompt = kac_alloc((size_t)b->batch * sizeof *b->prompt);
    b->totals = kac_alloc((size_t)b->batch * sizeof *b->totals);
    b->d_x0 = kac_alloc((size_t)(b->batch * b->t.n_state) * sizeof *b->d_x0);
    return b->prompt == NULL || b->totals == NULL || b->d_x0 == NULL ? KAC_E_MEMORY
                                                                     : kac_chain_open(&b->chain, &b->t, b->batch);
}

static void close_all(bench *b) {
    kac_chain_close(&b->chain);
    kac_latent_trainee_close(&b->t);
    kac_reward_set_close(&b->rewards);
    kac_options_destroy(b->options);
    kac_solver_free(&b->solver);
    kac_pipeline_close(&b->pipeline);
    kac_parameters_free(b->p);
    kac_free(b->prompt), kac_free(b->totals), kac_free(b->d_x0);
    if (b->c.ops != NULL) kac_ctx_close(&b->c);
}

static kac_status step(bench *b, int i) {
    const kac_chain_draw draw = {.prompt = b->prompt, .seed = 7, .cfg_scale = b->cfg};
    bool keep[MAX_STEPS] = {false};
    for (int k = b->steps - b->rows; k < b->steps; k++) keep[k] = true;
    const kac_chain_plan plan = {.keep = keep};
    const int64_t n = b->batch * b->t.n_state;
    memset(b->t.grads, 0, (size_t)b->t.n_values * sizeof *b->t.grads);
    const double start = kac_now_ms();
    for (int64_t k = 0; k < b->t.n_values; k++) b->t.values[k] = nextafterf(b->t.values[k], i % 2 == 0 ? 1 : -1);
    KAC_TRY(b->t.use(&b->t, b->t.values));
    KAC_TRY(kac_chain_sample(&b->chain, &draw));
    const double sampled = kac_now_ms();
    KAC_TRY(b->t.reward(&b->t, b->chain.x0, b->prompt, b->batch, b->totals, b->d_x0));
    const double scored = kac_now_ms();
    for (int64_t k = 0; k < n; k++) b->d_x0[k] /= (float)-b->batch;
    KAC_TRY(kac_chain_backward(&b->chain, &plan, b->d_x0, NULL));
    b->step_ms[i] = kac_now_ms() - start, b->sample_ms[i] = sampled - start, b->reward_ms[i] = scored - sampled;
    return KAC_OK;
}

static kac_status leave(const bench *b) {
    char path[1024];
    const int64_t factor = b->pipeline.factor, size = b->width > 0 ? b->width : b->pipeline.width;
    const kac_st_item x = {
        "x", kac_tensor_make(b->chain.x, KAC_F32, b->batch, size / factor, size / factor, b->pipeline.channels)};
    snprintf(path, sizeof path, "%s/start.safetensors", b->folder);
    KAC_TRY(kac_st_write(path, &x, 1, NULL, 0));
    snprintf(path, sizeof path, "%s/lora.safetensors", b->folder);
    KAC_TRY(kac_parameters_write(b->p, b->t.values, KAC_LORA_PEFT, path, NULL));
    snprintf(path, sizeof path, "%s/grads.safetensors", b->folder);
    return kac_parameters_write(b->p, b->t.grads, KAC_LORA_PEFT, path, NULL);
}

static void print_list(const char *name, const double *ms, int n) {
    printf("\"%s\": [", name);
    for (int i = 0; i < n; i++) printf("%s%.3f", i == 0 ? "" : ", ", ms[i]);
    printf("], ");
}

static kac_status run(bench *b) {
    KAC_TRY(open_all(b));
    /* up factors away from zero, so that every gradient is one */
    for (int64_t k = 0; k < b->t.n_values; k++)
        if (b->t.values[k] == 0) b->t.values[k] = (float)(0.02 * sin(0.37 * (double)(k % 9973)));
    for (int i = 0; i < b->repeats; i++) KAC_TRY(step(b, i));
    KAC_TRY(leave(b));
    printf("{");
    print_list("step_ms", b->step_ms, b->repeats);
    print_list("sample_ms", b->sample_ms, b->repeats);
    print_list("reward_ms", b->reward_ms, b->repeats);
    printf("\"model_bytes\": %zu, \"run_bytes\": %zu, \"scratch_bytes\": %zu, \"gradient_bytes\": %zu, ",
           b->c.model.peak, b->c.run.peak, b->c.scratch.peak, b->c.gradients_peak);
    double mean = 0;
    for (int i = 0; i < b->batch; i++) mean += b->totals[i] / b->batch;
    printf("\"reward\": %.9g, \"parameters\": %lld}\n", mean, (long long)b->t.n_values);
    return KAC_OK;
}

int main(int argc, char **argv) {
    if (argc < 4) {
        fprintf(stderr,
                "usage: bench.tune MODEL REWARD FOLDER [batch steps rows cfg rank width threads repeats keep]\n");
        return 2;
    }
    double number[] = {4, 25, 5, 5, 4, 0, 0, 3, 1};
    for (int i = 4; i < argc && i - 4 < KAC_COUNT_OF(number); i++) number[i - 4] = strtod(argv[i], NULL);
    bench b = {.model = argv[1],
               .reward = argv[2],
               .folder = argv[3],
               .batch = (int)number[0],
               .steps = KAC_MIN((int)number[1], MAX_STEPS),
               .rows = (int)number[2],
               .cfg = number[3],
               .rank = (int)number[4],
               .width = (int)number[5],
               .threads = (int)number[6],
               .repeats = KAC_MIN((int)number[7], MAX_REPEATS),
               .keep_all = number[8] != 0};
    const kac_status s = run(&b);
    if (s != KAC_OK) fprintf(stderr, "%s\n", kac_error());
    close_all(&b);
    return s == KAC_OK ? 0 : 1;
}
