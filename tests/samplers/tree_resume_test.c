/* Trees that are stopped, continued, damaged, or without memory. */
#include "base/memory.h"
#include "samplers/tree.h"
#include "tree_exact.h"
#include <kac/rng.h>

/* A sink that can stop a run at its n-th question whether to, and keeps the last checkpoint. */
typedef struct keeper {
    int n_asked, stop_at;
    int i_step; /* of the checkpoint; −1: none */
    kac_blob blobs[8];
    int n_blobs;
    bool restore;
} keeper;

static void forget(keeper *k) {
    for (int i = 0; i < k->n_blobs; i++) kac_free(k->blobs[i].data);
    k->n_blobs = 0;
    k->i_step = -1;
}

static kac_status on_checkpoint(kac_events *e, int i_step, const kac_blob *blobs, int n_blobs) {
    keeper *k = e->self;
    forget(k);
    k->i_step = i_step, k->n_blobs = n_blobs;
    for (int i = 0; i < n_blobs; i++) {
        k->blobs[i] = blobs[i];
        k->blobs[i].data = tree_case_kept(blobs[i].data, blobs[i].n_bytes);
    }
    return KAC_OK;
}

static kac_status on_restore(kac_events *e, int *i_step, kac_blob *blobs, int n_blobs) {
    keeper *k = e->self;
    *i_step = 0;
    if (!k->restore || k->i_step < 0) return KAC_OK;
    *i_step = k->i_step + 1;
    for (int i = 0; i < n_blobs; i++)
        for (int j = 0; j < k->n_blobs; j++)
            if (strcmp(blobs[i].name, k->blobs[j].name) == 0) {
                CHECK(blobs[i].data == NULL);
                blobs[i].data = tree_case_kept(k->blobs[j].data, k->blobs[j].n_bytes);
                blobs[i].n_bytes = k->blobs[j].n_bytes;
            }
    return KAC_OK;
}

static bool cancelled(kac_events *e) {
    keeper *k = e->self;
    return ++k->n_asked == k->stop_at;
}

static double slope(const double *x, const void *how) {
    (void)how;
    return -0.2 * (x[0] - 2) * (x[0] - 2) - 0.1 * (x[1] - 1) * (x[1] - 1);
}

enum { GROUPS = 3, K = 6 };

static kac_mixture *process(void) {
    ring r;
    ring_init(&r, 1);
    return ring_mixture(&r, 10, (kac_mixture_options){GROUPS, K, 5, 0});
}

static kac_status score(kac_reward *r, kac_process *p, const int *slots, int n, kac_stage stage, double *out) {
    (void)r;
    for (int i = 0; i < n; i++) out[i] = slope(kac_mixture_point(p, slots[i], stage), NULL);
    return KAC_OK;
}

/* Results of a run: the points, rewards, weights, estimates. */
typedef struct result {
    double x[GROUPS * K][2], rewards[GROUPS * K], log_z[GROUPS];
    int eves[GROUPS * K];
} result;

static kac_status run(keeper *k, const char *method, const char *line, int64_t nfe, result *out) {
    kac_mixture *m = process();
    kac_particles p = {0};
    kac_reward reward = {.name = "slope", .score = score};
    kac_events events = {
        .self = k, .on_checkpoint = on_checkpoint, .on_restore = on_restore, .cancelled = cancelled, .nfe = nfe};
    memset(out, 0, sizeof *out);
    const kac_status status = exact_run(&p, kac_mixture_process(m), &reward, &events, method, line, 3);
    for (int i = 0; status == KAC_OK && i < GROUPS * K; i++) {
        memcpy(out->x[i], kac_mixture_point(kac_mixture_process(m), i, KAC_STAGE_FINAL), sizeof out->x[i]);
        out->rewards[i] = p.rewards[i], out->eves[i] = p.eves[i];
        CHECK(p.log_weights[i] == 0.0 && out->eves[i] >= 0 && out->eves[i] <= i % K);
        CHECK(out->rewards[i] == slope(out->x[i], NULL));
    }
    for (int g = 0; status == KAC_OK && g < GROUPS; g++) out->log_z[g] = isnan(p.log_z[g]) ? -1 : p.log_z[g];
    kac_particles_free(&p);
    kac_mixture_destroy(m);
    return status;
}

/* Stopped at random moments, within rounds and between them, and continued until the budget is spent: nothing is different. */
static void test_resume(const char *method, const char *line) {
    static result whole, parts;
    keeper k = {.i_step = -1};
    if (!CHECK_OK(run(&k, method, line, 1000, &whole))) return;
    CHECK(k.i_step == -1);
    for (int trial = 0; trial < 3; trial++) {
        int n_runs = 0;
        k.restore = false;
        for (bool done = false; !done && n_runs < 200; n_runs++) {
            const double u = kac_rng_uniform((kac_key){1, KAC_PURPOSE_TEST, (uint32_t)trial}, 0, n_runs);
            k.n_asked = 0, k.stop_at = 1 + (int)(u * 90);
            const kac_status status = run(&k, method, line, 1000, &parts);
            if (k.i_step < 0 && status != KAC_OK) {
                CHECK_FAILS(status, KAC_E_CANCELLED, "before the first sample");
            } else {
                CHECK_OK(status);
            }
            done = k.n_asked < k.stop_at;
            k.restore = true;
        }
        CHECK(n_runs > 1 && n_runs < 200);
        CHECK(memcmp(&whole, &parts, sizeof whole) == 0);
        forget(&k);
    }
}

/* Any byte of a checkpoint that is not as it was, or of another run, is refused. */
static void test_damage(void) {
    static result out;
    const char *line = "lambda=1 widening=1";
    keeper k = {.i_step = -1, .stop_at = 60};
    CHECK_OK(run(&k, "dts", line, 1000, &out));
    CHECK(k.i_step > 0 && k.n_blobs == 4);
    k.restore = true, k.stop_at = 0;
    for (int trial = 0; trial < 64; trial++) {
        const kac_key key = {2, KAC_PURPOSE_TEST, (uint32_t)trial};
        kac_blob *b = &k.blobs[trial % 4];
        const size_t at = (size_t)(kac_rng_uniform(key, 0, 0) * (double)b->n_bytes), size = b->n_bytes;
        char *byte = (char *)b->data + at;
        *byte ^= 1 << (trial / 4 % 8);
        CHECK_FAILS(run(&k, "dts", line, 1000, &out), KAC_E_FORMAT, "start again without --resume");
        *byte ^= 1 << (trial / 4 % 8);
        b->n_bytes = at;
        CHECK_FAILS(run(&k, "dts", line, 1000, &out), KAC_E_FORMAT, "start again without --resume");
        b->n_bytes = size;
    }
    CHECK_FAILS(run(&k, "dts", "lambda=2 widening=1", 1000, &out), KAC_E_FORMAT, "does not belong to this run");
    CHECK_FAILS(run(&k, "dts", "lambda=1 widening=1 rollouts=2", 1000, &out), KAC_E_FORMAT, "does not belong");
    CHECK_FAILS(run(&k, "dts", "lambda=1 widening=1 branch-steps=0,5", 1000, &out), KAC_E_FORMAT, "does not belong");
    CHECK_OK(run(&k, "dts", line, 1000, &out));
    forget(&k);
}

/* Records that are no tree. */
static void test_records(void) {
    const kac_tree_record good[] = {{.place = -1, .visits = 3, .parent = -1, .level = -1},
                                    {.place = 0, .visits = 2, .parent = 0, .level = 0},
                                    {.place = 1, .visits = 1, .reward = 2, .parent = 1, .level = 1},
                                    {.place = 2, .visits = 2, .parent = 0, .level = 0},
                                    {.place = 3, .visits = 1, .reward = 1, .parent = 3, .level = 1}};
    for (int trial = 0; trial < 14; trial++) {
        kac_tree t;
        kac_tree_record r[5];
        int64_t n = 5;
        memcpy(r, good, sizeof r);
        switch (trial) {
        case 1:
            r[0].level = 0;
            break;
        case 2:
            r[0].parent = 0;
            break;
        case 3:
            r[1].parent = 1;
            break;
        case 4:
            r[1].parent = 4;
            break;
        case 5:
            r[1].parent = -1;
            break;
        case 6:
            r[2].parent = 0;
            break;
        case 7:
            r[2].level = 2;
            break;
        case 8:
            r[2].reward = (double)NAN;
            break;
        case 9:
            r[2].log_w = (double)NAN;
            break;
        case 10:
            r[2].visits = 0;
            break;
        case 11:
            r[4].parent = 1;
            break; /* leaves a state without a sample */
        case 12:
            n = 4;
            break;
        case 13:
            n = 0;
            break;
        default:
            break;
        }
        CHECK_OK(kac_tree_init(&t, 1, 1.0, KAC_TREE_SOFT, 1.0));
        if (trial == 0) {
            CHECK_OK(kac_tree_load(&t, r, n));
            CHECK_NEAR(t.nodes[0].value, log((exp(1) + exp(2)) / 2), 1e-12);
        } else {
            CHECK_FAILS(kac_tree_load(&t, r, n), KAC_E_FORMAT, "the saved tree is damaged");
        }
        kac_tree_free(&t);
    }
}

/* Memory that runs out anywhere ends the run with its status. */
static void test_memory(const char *method, const char *line) {
    ring r;
    int n_failed = 0;
    ring_init(&r, 1);
    for (long n = 1; n < 4000; n = n < 40 ? n + 1 : n + n / 8) {
        kac_mixture *m = ring_mixture(&r, 10, (kac_mixture_options){GROUPS, K, 5, 0});
        kac_options *o = exact_options(method, line);
        kac_particles p = {0};
        kac_reward reward = {.name = "slope", .score = score};
        keeper k = {.i_step = -1};
        kac_events events = {.self = &k, .nfe = 300};
        kac_alloc_fail_after(n);
        const kac_status status = kac_method_find(method)->run(&p, kac_mixture_process(m), &reward, &events, o, 3);
        kac_alloc_fail_after(0);
        CHECK(status == KAC_OK || status == KAC_E_MEMORY);
        n_failed += status == KAC_E_MEMORY;
        if (status != KAC_OK) CHECK(p.rewards == NULL && p.log_z == NULL);
        kac_particles_free(&p);
        kac_options_destroy(o);
        kac_mixture_destroy(m);
        if (status == KAC_OK) break;
    }
    printf("%s %s: out of memory at %d places\n", method, line, n_failed);
    CHECK(n_failed > 30);
}

int main(void) {
    test_resume("dts", "lambda=1 widening=1 widening-power=0.6");
    test_resume("dts", "lambda=1 rollouts=1 epsilon=0 estimate=tree widening=1 widening-power=0.5");
    test_resume("dts", "lambda=1 build=tempered rollouts=4");
    test_resume("dts-star", "lambda=1 widening=1 widening-power=0.6 rollouts=2");
    test_resume("dts-star", "lambda=1 backup=max final=path");
    test_damage();
    test_records();
    test_memory("dts", "lambda=1 widening=1");
    test_memory("dts-star", "lambda=1 backup=max");
    return check_done();
}
