#include "staged.h"
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static atomic_uint n_opened; /* two threads may write the same path */

/* A rename would replace a device file, for one. */
static kac_status refuse_special(const char *path) {
    struct stat st;
    if (lstat(path, &st) == 0 && !S_ISREG(st.st_mode))
        return KAC_FAIL(KAC_E_IO, "%s exists and is not a regular file; it is left as it is", path);
    return KAC_OK;
}

/* Cancels, then reports: `error` is an errno. */
static kac_status failed(kac_staged *f, const char *path, int error) {
    const kac_status s = KAC_FAIL(KAC_E_IO, "cannot write %s: %s", path, strerror(error));
    kac_staged_cancel(f);
    return s;
}

kac_status kac_staged_open(kac_staged *f, const char *path) {
    *f = (kac_staged){.fd = -1};
    KAC_TRY(refuse_special(path));
    char *temporary = kac_format("%s.part-%ld-%u", path, (long)getpid(), atomic_fetch_add(&n_opened, 1));
    f->path = kac_strdup(path);
    if (temporary == NULL || f->path == NULL) {
        kac_free(temporary);
        kac_staged_cancel(f);
        return KAC_E_MEMORY;
    }
    unlink(temporary); /* of a process that had our number and was killed */
    f->fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (f->fd >= 0) {
        f->temporary = temporary;
        return KAC_OK;
    }
    const int error = errno;
    kac_free(temporary);
    return failed(f, path, error);
}

kac_status kac_staged_add(kac_staged *f, const void *data, size_t n_bytes) {
    for (const char *at = data; n_bytes > 0;) {
        const ssize_t put = write(f->fd, at, n_bytes);
        if (put < 0 && errno == EINTR) continue;
        if (put <= 0) return failed(f, f->path, put < 0 ? errno : ENOSPC);
        at += put, n_bytes -= (size_t)put;
    }
    return KAC_OK;
}

kac_status kac_staged_commit(kac_staged *f) {
    if (fsync(f->fd) != 0) return failed(f, f->path, errno);
    const int fd = f->fd;
    f->fd = -1;
    if (close(fd) != 0) return failed(f, f->path, errno);
    const kac_status s = refuse_special(f->path);
    if (s != KAC_OK) {
        kac_staged_cancel(f);
        return s;
    }
    if (rename(f->temporary, f->path) != 0) return failed(f, f->path, errno);
    kac_free(f->temporary);
    f->temporary = NULL;
    kac_staged_cancel(f);
    return KAC_OK;
}

void kac_staged_cancel(kac_staged *f) {
    if (f->fd >= 0) close(f->fd);
    if (f->temporary != NULL) unlink(f->temporary);
    kac_free(f->temporary);
    kac_free(f->path);
    *f = (kac_staged){.fd = -1};
}
