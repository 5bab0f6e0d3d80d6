#include "score_files.h"
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_DEPTH = 32 }; /* of folders: links may lead in circles */

/* Takes `path` over. */
static kac_status add_item(kac_score_list *l, char *path) {
    if (path == NULL) return KAC_E_MEMORY;
    if (l->n == l->cap) {
        const int cap = l->cap > 0 ? 2 * l->cap : 64;
        kac_scored *more = kac_realloc(l->items, (size_t)cap * sizeof *more);
        if (more == NULL) {
            kac_free(path);
            return KAC_E_MEMORY;
        }
        l->items = more;
        l->cap = cap;
    }
    l->items[l->n++] = (kac_scored){.path = path};
    return KAC_OK;
}

static bool is_picture(const char *name) {
    const char *dot = strrchr(name, '.');
    static const char *const ends[] = {".png", ".jpg", ".jpeg", ".bmp"};
    for (int i = 0; dot != NULL && i < KAC_COUNT_OF(ends); i++)
        if (strcasecmp(dot, ends[i]) == 0) return true;
    return false;
}

static kac_status add_folder(kac_score_list *l, const char *folder, int depth);

static kac_status add_entry(kac_score_list *l, const char *folder, const char *name, int depth) {
    if (name[0] == '.' || (depth == 0 && !is_picture(name))) return KAC_OK;
    char *path = kac_path_join(folder, name);
    if (path == NULL) return KAC_E_MEMORY;
    struct stat st;
    const bool known = stat(path, &st) == 0;
    if (is_picture(name) && !(known && S_ISDIR(st.st_mode))) return add_item(l, path);
    const kac_status s = depth > 0 && known && S_ISDIR(st.st_mode) ? add_folder(l, path, depth - 1) : KAC_OK;
    kac_free(path);
    return s;
}

static kac_status add_folder(kac_score_list *l, const char *folder, int depth) {
    DIR *dir = opendir(folder);
    if (dir == NULL) return KAC_FAIL(KAC_E_IO, "cannot read %s: %s", folder, strerror(errno));
    kac_status s = KAC_OK;
    for (const struct dirent *e = readdir(dir); e != NULL && s == KAC_OK; e = readdir(dir))
        s = add_entry(l, folder, e->d_name, depth);
    closedir(dir);
    return s;
}

static int by_path(const void *a, const void *b) {
    return strcmp(((const kac_scored *)a)->path, ((const kac_scored *)b)->path);
}

kac_status kac_score_list_add(kac_score_list *l, const char *word, bool recursive) {
    const int before = l->n;
    if (!kac_dir_exists(word)) return add_item(l, kac_strdup(word));
    KAC_TRY(add_folder(l, word, recursive ? MAX_DEPTH : 0));
    if (l->n == before)
        return KAC_FAIL(KAC_E_USAGE, "%s holds no pictures (.png, .jpg, .bmp)%s", word,
                        recursive ? "" : "; --recursive looks into its folders too");
    qsort(l->items + before, (size_t)(l->n - before), sizeof *l->items, by_path);
    return KAC_OK;
}

void kac_score_list_free(kac_score_list *l) {
    for (int i = 0; i < l->n; i++) kac_scored_free(&l->items[i]);
    kac_free(l->items);
    *l = (kac_score_list){0};
}

/* ---- copies ---- */

static char *copy_path(const kac_scored *items, int i, int n, const char *folder) {
    int digits = 1;
    for (int left = n; left >= 10; left /= 10) digits++;
    return kac_format("%s/%0*d-%s", folder, digits, i + 1, kac_path_base(items[i].path));
}

static kac_status copy_file(const char *to, const char *from) {
    kac_map m;
    KAC_TRY(kac_map_open(&m, from));
    const kac_status s = kac_file_write(to, m.data, m.n);
    kac_map_close(&m);
    return s;
}

kac_status kac_score_copy(const kac_scored *items, int n, const char *folder) {
    kac_status s = KAC_OK;
    const bool is_new = !kac_dir_exists(folder);
    struct stat st;
    for (int i = 0; i < n && s == KAC_OK; i++) {
        char *path = copy_path(items, i, n, folder);
        if (path == NULL)
            s = KAC_E_MEMORY;
        else if (lstat(path, &st) == 0)
            s = KAC_FAIL(KAC_E_USAGE, "%s exists already; nothing was copied: give another --copy-to", path);
        kac_free(path);
    }
    if (s == KAC_OK) s = kac_dir_make(folder);
    int n_copied = 0;
    for (; n_copied < n && s == KAC_OK; n_copied += s == KAC_OK) {
        char *path = copy_path(items, n_copied, n, folder);
        s = path == NULL ? KAC_E_MEMORY : copy_file(path, items[n_copied].path);
        kac_free(path);
    }
    for (int i = 0; i < n_copied && s != KAC_OK; i++) {
        char *path = copy_path(items, i, n, folder);
        if (path != NULL) unlink(path);
        kac_free(path);
    }
    if (s != KAC_OK && is_new) rmdir(folder); /* refused by the system unless it is empty */
    return s;
}
