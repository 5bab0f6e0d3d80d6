#include "weights.h"
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The folder of the running program, without a '/' at its end. */
static bool program_folder(char *out, size_t n) {
    const ssize_t used = readlink("/proc/self/exe", out, n - 1);
    if (used <= 0) return false;
    out[used] = '\0';
    char *slash = strrchr(out, '/');
    if (slash == NULL) return false;
    *slash = '\0';
    return true;
}

char *kac_cli_weights_dir(void) {
    const char *set = getenv("KAC_WEIGHTS");
    if (set != NULL && set[0] != '\0') return kac_strdup(set);
    char program[PATH_MAX];
    if (program_folder(program, sizeof program)) {
        char *path = kac_format("%s/../share/kac/weights", program);
        if (path == NULL || kac_dir_exists(path)) return path;
        kac_free(path);
    }
    return kac_strdup(KAC_SOURCE_WEIGHTS);
}
