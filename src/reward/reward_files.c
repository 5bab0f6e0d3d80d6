#include "reward/reward_files.h"
#include "reward/preprocess_tensor.h"
#include <dirent.h>
#include <errno.h>
#include <string.h>

char *kac_reward_folder(const char *path) {
    if (kac_dir_exists(path)) return kac_strdup(path);
    const size_t n = (size_t)(kac_path_base(path) - path);
    return n == 0 ? kac_strdup(".") : kac_format("%.*s", (int)n, path);
}

static bool is_weights(const char *name) {
    static const char *const ends[] = {".safetensors", ".pt", ".pth", ".bin", ".ckpt"};
    const char *dot = strrchr(name, '.');
    for (int i = 0; dot != NULL && i < KAC_COUNT_OF(ends); i++)
        if (strcmp(dot, ends[i]) == 0) return true;
    return false;
}

typedef struct folder_view {
    char *file; /* the first file of weights */
    int n_files;
    bool index; /* of shards */
} folder_view;

static kac_status look(folder_view *v, const char *folder) {
    *v = (folder_view){0};
    DIR *dir = opendir(folder);
    if (dir == NULL) return KAC_FAIL(KAC_E_IO, "cannot read %s: %s", folder, strerror(errno));
    for (const struct dirent *e = readdir(dir); e != NULL; e = readdir(dir)) {
        v->index |= strstr(e->d_name, ".index.json") != NULL;
        if (is_weights(e->d_name) && v->n_files++ == 0) v->file = kac_path_join(folder, e->d_name);
    }
    closedir(dir);
    return v->n_files > 0 && v->file == NULL ? KAC_E_MEMORY : KAC_OK;
}

static kac_status open_folder(kac_weights *w, const folder_view *v, const char *folder) {
    if (v->n_files == 0) return KAC_FAIL(KAC_E_FORMAT, "%s holds no weights (.safetensors, .pt, .pth, .bin)", folder);
    if (v->n_files == 1 && !v->index) return kac_weights_open(w, v->file);
    const kac_status s = kac_weights_open_dir(w, folder, "model");
    if (s != KAC_E_IO || v->index) return s;
    return KAC_FAIL(KAC_E_USAGE, "%s holds %d files of weights; name the one that is meant", folder, v->n_files);
}

static kac_status open_weights(kac_weights *w, const char *path) {
    if (!kac_dir_exists(path)) return kac_weights_open(w, path);
    folder_view v;
    kac_status s = look(&v, path);
    if (s == KAC_OK) s = open_folder(w, &v, path);
    kac_free(v.file);
    return s;
}

kac_status kac_reward_source_open(kac_source *s, const char *path) {
    *s = (kac_source){.path = kac_strdup(path)};
    char *folder = kac_reward_folder(path), *config = folder == NULL ? NULL : kac_path_join(folder, "config.json");
    kac_status status = s->path == NULL || config == NULL ? KAC_E_MEMORY : KAC_OK;
    if (status == KAC_OK && kac_file_exists(config)) status = kac_json_load(&s->config, config);
    if (status == KAC_OK) status = open_weights(&s->weights, path);
    kac_free(folder), kac_free(config);
    if (status != KAC_OK) kac_source_close(s);
    return status;
}

/* One picture through the float way; `row` [1, edge, edge, 3]. */
static kac_status float_pixels(kac_ctx *c, kac_tensor *row, const kac_preprocess *p, const kac_picture *picture) {
    const size_t mark = kac_arena_mark(&c->scratch);
    const int64_t n = (int64_t)picture->width * picture->height * 3;
    kac_tensor image;
    KAC_TRY(kac_take_make(&image, &c->scratch, KAC_F32, 1, picture->height, picture->width, 3));
    for (int64_t i = 0; i < n && !c->scratch.counting; i++) ((float *)image.data)[i] = (float)picture->rgb[i] / 255.0f;
    KAC_TRY(kac_preprocess_tensor(c, row, p, image));
    kac_arena_release(&c->scratch, mark);
    return KAC_OK;
}

kac_status kac_reward_pixels(kac_tensor *pixels, kac_image_reward *r, const kac_preprocess *p, int64_t edge,
                             const kac_picture *pictures, int n) {
    KAC_TRY(kac_take_make(pixels, &r->c->scratch, KAC_F32, n, edge, edge, 3));
    for (int i = 0; i < n; i++) {
        int w, h;
        kac_preprocess_size(p, pictures[i].width, pictures[i].height, &w, &h);
        if (w != edge || h != edge)
            return KAC_FAIL(KAC_E_SHAPE, "%s: preprocessing gives %d × %d pictures, the model wants %lld × %lld",
                            r->name, w, h, (long long)edge, (long long)edge);
        kac_tensor row = kac_tensor_slice(*pixels, 0, i, 1);
        KAC_TRY(p->in_float ? float_pixels(r->c, &row, p, &pictures[i])
                            : kac_preprocess_apply(row.data, p, pictures[i].rgb, pictures[i].width, pictures[i].height,
                                                   &r->c->scratch));
    }
    return KAC_OK;
}
