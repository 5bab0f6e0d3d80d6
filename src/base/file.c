#include "base.h"
#include "staged.h"
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* Opens a regular file and gives its size. A folder opens for reading too, so the kind is asked explicitly; O_NONBLOCK
 * keeps a FIFO from blocking. */
static kac_status open_regular(int *fd, size_t *n, const char *path) {
    *fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (*fd < 0) return KAC_FAIL(KAC_E_IO, "cannot open %s: %s", path, strerror(errno));
    struct stat st;
    if (fstat(*fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        close(*fd);
        return KAC_FAIL(KAC_E_IO, "%s is not a regular file", path);
    }
    *n = (size_t)st.st_size;
    return KAC_OK;
}

kac_status kac_file_read(char **out, size_t *n, const char *path, size_t max_bytes) {
    int fd;
    size_t size;
    KAC_TRY(open_regular(&fd, &size, path));
    if (size > max_bytes) {
        close(fd);
        return KAC_FAIL(KAC_E_IO, "%s has %zu bytes, more than the %zu allowed for such a file", path, size, max_bytes);
    }
    char *data = kac_alloc(size + 1);
    if (data == NULL) {
        close(fd);
        return KAC_E_MEMORY;
    }
    size_t done = 0;
    while (done < size) {
        const ssize_t got = read(fd, data + done, size - done);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) break;
        done += (size_t)got;
    }
    const int error = errno;
    close(fd);
    if (done < size) {
        kac_free(data);
        return KAC_FAIL(KAC_E_IO, "cannot read %s: %s", path, strerror(error));
    }
    *out = data, *n = size;
    return KAC_OK;
}

kac_status kac_file_write(const char *path, const void *data, size_t n) {
    kac_staged f;
    KAC_TRY(kac_staged_open(&f, path));
    KAC_TRY(kac_staged_add(&f, data, n));
    return kac_staged_commit(&f);
}

bool kac_file_exists(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && S_ISREG(st.st_mode);
}

bool kac_dir_exists(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

kac_status kac_dir_make(const char *path) {
    char *copy = kac_strdup(path);
    if (copy == NULL) return KAC_E_MEMORY;
    kac_status s = KAC_OK;
    for (char *p = copy + 1; s == KAC_OK && copy[0] != '\0'; p++) {
        if (*p != '/' && *p != '\0') continue;
        const char old = *p;
        *p = '\0';
        if (mkdir(copy, 0777) != 0 && !kac_dir_exists(copy))
            s = KAC_FAIL(KAC_E_IO, "cannot make the folder %s: %s", copy, strerror(errno == EEXIST ? ENOTDIR : errno));
        *p = old;
        if (old == '\0') break;
    }
    kac_free(copy);
    return s;
}

char *kac_path_join(const char *path, const char *name) {
    const size_t n = strlen(path);
    return kac_format("%s%s%s", path, n > 0 && path[n - 1] == '/' ? "" : "/", name);
}

const char *kac_path_base(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash == NULL ? path : slash + 1;
}

kac_status kac_map_open(kac_map *m, const char *path) {
    int fd;
    size_t n;
    *m = (kac_map){0};
    KAC_TRY(open_regular(&fd, &n, path));
    if (n == 0) {
        close(fd);
        return KAC_FAIL(KAC_E_FORMAT, "%s is empty", path);
    }
    void *p = mmap(NULL, n, PROT_READ, MAP_PRIVATE, fd, 0);
    const int error = errno;
    close(fd);
    if (p == MAP_FAILED) return KAC_FAIL(KAC_E_IO, "cannot map %s: %s", path, strerror(error));
    *m = (kac_map){.data = p, .n = n};
    return KAC_OK;
}

void kac_map_close(kac_map *m) {
    if (m->data != NULL) munmap((void *)(uintptr_t)m->data, m->n);
    *m = (kac_map){0};
}
