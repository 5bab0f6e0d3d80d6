/* `kac run scheduler`: from files to files, and what it refuses. */
#include "base/base.h"
#include "check.h"
#include "io/safetensors.h"
#include "io/weights.h"
#include "run/run_scheduler.h"
#include "util/temp.h"

static const char config[] =
    "{\"_class_name\": \"DDIMScheduler\", \"clip_sample\": false, \"timestep_spacing\": \"trailing\"}";

static const char *write_inputs(float *sample, float *noise, int n_draws) {
    const char *path = temp_path("in.safetensors");
    const kac_st_item items[] = {{"sample", kac_tensor_make(sample, KAC_F32, 2, 3)},
                                 {"noise", kac_tensor_make(noise, KAC_F32, n_draws, 2, 3)}};
    CHECK_OK(kac_st_write(path, items, n_draws > 0 ? 2 : 1, NULL, 0));
    return path;
}

int main(void) {
    float sample[6] = {1, -2, 0.5f, 3, 0.25f, -1}, noise[18];
    for (int i = 0; i < 18; i++) noise[i] = (float)(i % 5) - 2.0f;
    kac_run_scheduler_args a = {.config_path = temp_write("scheduler_config.json", config, sizeof config - 1),
                                .in_path = write_inputs(sample, noise, 0),
                                .out_path = temp_path("out.safetensors"),
                                .options = {.n_steps = 4, .eta = NAN}};
    CHECK_OK(kac_run_scheduler(&a));
    kac_weights out = {0};
    kac_tensor final, trajectory, timesteps;
    if (CHECK_OK(kac_weights_open(&out, a.out_path)) && CHECK_OK(kac_weights_find(&out, "sample", &final)) &&
        CHECK_OK(kac_weights_find(&out, "trajectory", &trajectory)) &&
        CHECK_OK(kac_weights_find(&out, "timesteps", &timesteps))) {
        CHECK(trajectory.rank == 3 && trajectory.shape[0] == 4 && final.rank == 2);
        const double *t = timesteps.data;
        CHECK(timesteps.shape[0] == 4 && t[0] == 999 && t[1] == 749 && t[3] == 249);
        /* the loop is linear and works element by element: every element is scaled by the same number */
        const float *x = final.data, *states = trajectory.data;
        for (int i = 1; i < 6; i++) CHECK_NEAR(x[i] / x[0], sample[i] / sample[0], 1e-5);
        CHECK(memcmp(x, states + 18, 6 * sizeof *x) == 0);
    }
    kac_weights_close(&out);

    a.options.eta = 1; /* three of the four steps draw: the last has no noise left to add */
    CHECK_FAILS(kac_run_scheduler(&a), KAC_E_SHAPE, "noise has 0 entries");
    write_inputs(sample, noise, 2);
    CHECK_FAILS(kac_run_scheduler(&a), KAC_E_SHAPE, "noise has 2 entries");
    write_inputs(sample, noise, 3);
    CHECK_OK(kac_run_scheduler(&a));
    const kac_st_item wrong[] = {{"sample", kac_tensor_make(sample, KAC_F32, 2, 3)},
                                 {"noise", kac_tensor_make(noise, KAC_F32, 3, 3, 2)}};
    CHECK_OK(kac_st_write(a.in_path, wrong, 2, NULL, 0));
    CHECK_FAILS(kac_run_scheduler(&a), KAC_E_SHAPE, "noise must be");
    const kac_st_item none[] = {{"latent", kac_tensor_make(sample, KAC_F32, 2, 3)}};
    CHECK_OK(kac_st_write(a.in_path, none, 1, NULL, 0));
    CHECK_FAILS(kac_run_scheduler(&a), KAC_E_FORMAT, "sample");
    a.in_path = temp_path("missing.safetensors");
    CHECK_FAILS(kac_run_scheduler(&a), KAC_E_IO, "missing");
    a.config_path = temp_path("missing.json");
    CHECK_FAILS(kac_run_scheduler(&a), KAC_E_IO, "missing");
    return check_done();
}
