/* kac run COMPONENT --grad against PyTorch's gradients in float64: every file of tests/golden/grad, and gradients that do not fit. */
#include "check.h"
#include "run/run_component.h"
#include "tensor/ops.h"
#include "util/golden.h"
#include "util/temp.h"
#include <dirent.h>
#include <stdlib.h>

enum { MAX_ITEMS = 16 };

typedef struct given {
    golden g;
    kac_weights grads;
    kac_st_item items[MAX_ITEMS];
    char name[MAX_ITEMS][GOLDEN_MAX_NAME];
    int n;
} given;

static bool begins(const char *s, const char *with) {
    return strncmp(s, with, strlen(with)) == 0;
}

/* The case's inputs, and the gradients of outputs `of` (NULL: all), as one file. */
static const char *write_inputs(given *v, const char *of) {
    v->n = 0;
    for (int i = 0; i < v->g.data.n_entries && v->n < MAX_ITEMS; i++) {
        if (!begins(v->g.data.entries[i].name, "in.")) continue;
        snprintf(v->name[v->n], GOLDEN_MAX_NAME, "%s", v->g.data.entries[i].name + 3);
        CHECK_OK(kac_weights_find(&v->g.data, v->g.data.entries[i].name, &v->items[v->n++].tensor));
    }
    for (int i = 0; i < v->grads.n_entries && v->n < MAX_ITEMS; i++) {
        const char *name = v->grads.entries[i].name;
        if (!begins(name, "grad.out.") || (of != NULL && strcmp(name + 9, of) != 0)) continue;
        snprintf(v->name[v->n], GOLDEN_MAX_NAME, "grad.%s", name + 9);
        CHECK_OK(kac_weights_find(&v->grads, name, &v->items[v->n++].tensor));
    }
    for (int i = 0; i < v->n; i++) v->items[i].name = v->name[i];
    const char *path = temp_path("in.safetensors");
    CHECK_OK(kac_st_write(path, v->items, v->n, NULL, 0));
    return path;
}

/* Relative L2 of gradient `name` in the file; negative when it is not there. */
static double distance(const given *v, const kac_weights *out, const char *name) {
    char wanted[GOLDEN_MAX_NAME], found[GOLDEN_MAX_NAME];
    kac_tensor want, have;
    double d = 0, norm = 0;
    snprintf(wanted, sizeof wanted, "grad.in.%s", name);
    snprintf(found, sizeof found, "grad.%s", name);
    if (kac_weights_entry_of(&v->grads, wanted) == NULL || !CHECK_OK(kac_weights_find(&v->grads, wanted, &want)) ||
        !CHECK_OK(kac_weights_find(out, found, &have)) || !CHECK(kac_tensor_same_shape(want, have)))
        return -1;
    for (int64_t i = 0; i < kac_tensor_count(want); i++) {
        const double x = (double)((const float *)have.data)[i], y = (double)((const float *)want.data)[i];
        d += (x - y) * (x - y);
        norm += y * y;
    }
    return sqrt(d / norm);
}

/* 1e-5, or six times what PyTorch's own float32 run is off where that is more: the fast convolutions round more coarsely than a
 * product does, and such networks amplify it. */
static double tolerance_of(const given *v) {
    kac_tensor t;
    if (!CHECK_OK(kac_weights_find(&v->grads, "reference_f32_error", &t))) return 0;
    return KAC_MAX(1e-5, 6.0 * (double)*(const float *)t.data);
}

static void check_component(given *v, const char *component, const char *of, const char *only) {
    kac_weights out = {0};
    const kac_run_component_args a = {.component = component,
                                      .model_dir = v->g.dir,
                                      .in_path = write_inputs(v, of),
                                      .out_path = temp_path("out.safetensors"),
                                      .ops = kac_cpu_ops(),
                                      .dtype = KAC_F32,
                                      .grad = true,
                                      .n_threads = 2};
    const double tolerance = tolerance_of(v);
    int n_compared = 0;
    if (!CHECK_OK(kac_run_component(&a)) || !CHECK_OK(kac_weights_open(&out, a.out_path))) return;
    for (int i = 0; i < v->grads.n_entries; i++) {
        const char *name = v->grads.entries[i].name;
        if (!begins(name, "grad.in.") || (only != NULL && strcmp(name + 8, only) != 0)) continue;
        const double error = distance(v, &out, name + 8);
        printf("%-28s %-10s %-22s %8.1e %5.1f %%\n", v->g.name, component, name + 8, error, error / tolerance * 100);
        CHECK(error >= 0 && error <= tolerance);
        n_compared++;
    }
    CHECK(n_compared > 0);
    kac_weights_close(&out);
}

/* "unet.sd1.safetensors" -> case "unet/sd1" */
static void check_file(const char *file) {
    given v = {0};
    char path[256], name[GOLDEN_MAX_NAME];
    snprintf(path, sizeof path, "tests/golden/grad/%s", file);
    snprintf(name, sizeof name, "%.*s", (int)(strlen(file) - strlen(".safetensors")), file);
    *strchr(name, '.') = '/';
    if (!CHECK_OK(kac_weights_open(&v.grads, path))) return;
    if (CHECK_OK(golden_open(&v.g, name))) {
        if (begins(name, "unet")) check_component(&v, "unet", NULL, NULL);
        if (begins(name, "clip")) check_component(&v, "clip", NULL, NULL);
        if (begins(name, "vae/") || begins(name, "tiny/")) {
            check_component(&v, "vae.decode", "sample", "z");
            check_component(&v, "vae.encode", begins(name, "vae/") ? "moments" : "latents", "sample");
        }
        golden_close(&v.g);
    }
    kac_weights_close(&v.grads);
}

static void test_bad_seeds(void) {
    given v = {0};
    if (!CHECK_OK(kac_weights_open(&v.grads, "tests/golden/grad/tiny.three.safetensors"))) return;
    if (CHECK_OK(golden_open(&v.g, "tiny/three"))) {
        kac_run_component_args a = {.component = "vae.decode",
                                    .model_dir = v.g.dir,
                                    .out_path = temp_path("none.safetensors"),
                                    .ops = kac_cpu_ops(),
                                    .dtype = KAC_F32,
                                    .grad = true,
                                    .n_threads = 2};
        a.in_path = write_inputs(&v, "latents");
        CHECK_FAILS(kac_run_component(&a), KAC_E_USAGE, "put \"grad.sample\"");
        a.in_path = write_inputs(&v, "sample");
        for (int i = 0; i < v.n; i++)
            if (strcmp(v.items[i].name, "grad.sample") == 0)
                v.items[i].tensor = kac_tensor_slice(v.items[i].tensor, 2, 0, v.items[i].tensor.shape[2] - 1);
        for (int i = 0; i < v.n; i++)
            v.items[i].tensor = kac_tensor_of(v.items[i].tensor.data, v.items[i].tensor.dtype, v.items[i].tensor.rank,
                                              v.items[i].tensor.shape);
        CHECK_OK(kac_st_write(temp_path("in.safetensors"), v.items, v.n, NULL, 0));
        CHECK_FAILS(kac_run_component(&a), KAC_E_SHAPE, "\"grad.sample\" is [1, 3, 15, 8]");
        CHECK(!kac_file_exists(a.out_path));
        golden_close(&v.g);
    }
    kac_weights_close(&v.grads);
}

static int by_name(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

int main(void) {
    char *file[GOLDEN_MAX_CASES];
    int n = 0;
    DIR *dir = opendir("tests/golden/grad");
    for (struct dirent *e; dir != NULL && (e = readdir(dir)) != NULL && n < GOLDEN_MAX_CASES;)
        if (strstr(e->d_name, ".safetensors") != NULL) file[n++] = kac_strdup(e->d_name);
    if (dir != NULL) closedir(dir);
    CHECK(n >= 17);
    qsort(file, (size_t)n, sizeof *file, by_name);
    for (int i = 0; i < n; i++) {
        check_file(file[i]);
        kac_free(file[i]);
    }
    test_bad_seeds();
    return check_done();
}
