#include "child.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MAX_LINE = 1 << 20, CHUNK = 1 << 16, GRACE_MS = 2000, END_MS = 500 };

extern char **environ;

/* ---- words ---- */

/* Copies one word to *to and moves *from behind it; false when a quote stays open. */
static bool copy_word(char **to, const char **from) {
    const char *p = *from;
    char *w = *to, quote = 0;
    for (; *p != '\0' && (quote != 0 || strchr(" \t\r\n", *p) == NULL); p++) {
        if (quote == 0 && (*p == '\'' || *p == '"'))
            quote = *p;
        else if (*p == quote)
            quote = 0;
        else if (*p == '\\' && p[1] != '\0' && (quote == 0 || (quote == '"' && strchr("\"\\$`", p[1]) != NULL)))
            *w++ = *++p;
        else
            *w++ = *p;
    }
    *w++ = '\0';
    *to = w, *from = p;
    return quote == 0;
}

kac_status kac_command_words(char ***out, const char *command) {
    const size_t n = strlen(command), max_words = n / 2 + 2;
    char **words = kac_alloc(max_words * sizeof *words + n + 1);
    if (words == NULL) return KAC_E_MEMORY;
    char *to = (char *)(words + max_words);
    size_t n_words = 0;
    for (const char *p = command + strspn(command, " \t\r\n"); *p != '\0'; p += strspn(p, " \t\r\n")) {
        words[n_words++] = to;
        if (copy_word(&to, &p)) continue;
        kac_free(words);
        return KAC_FAIL(KAC_E_USAGE, "the command %.120s has a quote without its end", command);
    }
    if (n_words == 0 || words[0][0] == '\0') {
        kac_free(words);
        return KAC_FAIL(KAC_E_USAGE, "the command \"%.120s\" names no program", command);
    }
    *out = words;
    return KAC_OK;
}

/* ---- starting ---- */

/* A pipe above the standard streams, closed in programs that are started, its end `ours` without blocking. */
static kac_status open_pipe(int ends[2], int ours) {
    int raw[2];
    ends[0] = ends[1] = -1;
    if (pipe2(raw, O_CLOEXEC) != 0) return KAC_FAIL(KAC_E_IO, "cannot make a pipe: %s", strerror(errno));
    for (int i = 0; i < 2; i++) {
        ends[i] = fcntl(raw[i], F_DUPFD_CLOEXEC, 3);
        close(raw[i]);
    }
    if (ends[0] >= 0 && ends[1] >= 0 && fcntl(ends[ours], F_SETFL, O_NONBLOCK) == 0) return KAC_OK;
    return KAC_FAIL(KAC_E_IO, "cannot make a pipe: %s", strerror(errno));
}

static void close_fd(int *fd) {
    if (*fd >= 0) close(*fd);
    *fd = -1;
}

static int spawn(pid_t *pid, char **words, const int theirs[3]) {
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attributes;
    sigset_t none, all;
    sigemptyset(&none), sigfillset(&all);
    posix_spawn_file_actions_init(&files), posix_spawnattr_init(&attributes);
    for (int i = 0; i < 3; i++) posix_spawn_file_actions_adddup2(&files, theirs[i], i);
#if defined(__GLIBC__) && __GLIBC_PREREQ(2, 34)
    posix_spawn_file_actions_addclosefrom_np(&files, 3);
#endif
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK);
    posix_spawnattr_setpgroup(&attributes, 0);
    posix_spawnattr_setsigdefault(&attributes, &all);
    posix_spawnattr_setsigmask(&attributes, &none);
    const int error = posix_spawnp(pid, words[0], &files, &attributes, words, environ);
    posix_spawn_file_actions_destroy(&files), posix_spawnattr_destroy(&attributes);
    return error;
}

kac_status kac_child_start(kac_child *c, const char *command) {
    *c = (kac_child){.in = -1, .out = -1, .err = -1, .command = kac_strdup(command)};
    char **words = NULL;
    int pipes[3][2] = {{-1, -1}, {-1, -1}, {-1, -1}};
    kac_status s = c->command == NULL ? KAC_E_MEMORY : kac_command_words(&words, command);
    for (int i = 0; i < 3 && s == KAC_OK; i++) s = open_pipe(pipes[i], i == 0 ? 1 : 0);
    const int error = s == KAC_OK ? spawn(&c->pid, words, (int[]){pipes[0][0], pipes[1][1], pipes[2][1]}) : 0;
    if (error != 0) s = KAC_FAIL(KAC_E_IO, "cannot start %s: %s", words[0], strerror(error));
    close_fd(&pipes[0][0]), close_fd(&pipes[1][1]), close_fd(&pipes[2][1]);
    c->in = pipes[0][1], c->out = pipes[1][0], c->err = pipes[2][0];
    kac_free(words);
    if (s != KAC_OK) {
        c->pid = 0;
        kac_child_stop(c);
    }
    return s;
}

/* ---- reading and writing ---- */

/* A reader that went away is an error, not a signal. */
static ssize_t write_quietly(int fd, const void *data, size_t n) {
    sigset_t pipe_signal, before, pending;
    sigemptyset(&pipe_signal), sigaddset(&pipe_signal, SIGPIPE);
    sigpending(&pending);
    const bool was_pending = sigismember(&pending, SIGPIPE) == 1;
    pthread_sigmask(SIG_BLOCK, &pipe_signal, &before);
    const ssize_t put = write(fd, data, n);
    const int error = errno;
    if (put < 0 && error == EPIPE && !was_pending) sigtimedwait(&pipe_signal, NULL, &(struct timespec){0});
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    errno = error;
    return put;
}

/* Keeps the last line that is not empty. */
static void remember(kac_child *c, const char *text, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (text[i] == '\n' || text[i] == '\r') {
            c->said_ended = true;
            continue;
        }
        if (c->said_ended) c->n_said = 0, c->said_ended = false;
        if (c->n_said < sizeof c->said - 1) c->said[c->n_said++] = text[i];
        c->said[c->n_said] = '\0';
    }
}

/* Standard error: what is there now, passed on. */
static void drain_errors(kac_child *c) {
    char buffer[4096];
    ssize_t got;
    while (c->err >= 0 && (got = read(c->err, buffer, sizeof buffer)) != 0) {
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return; /* nothing more now */
        remember(c, buffer, (size_t)got);
        if (write_quietly(STDERR_FILENO, buffer, (size_t)got) < 0) continue; /* ours is closed: no reason to stop */
    }
    close_fd(&c->err);
}

/* Output: what is there now. False at its end. */
static bool take_output(kac_child *c) {
    char buffer[CHUNK];
    const ssize_t got = read(c->out, buffer, sizeof buffer);
    if (got > 0) kac_text_add_bytes(&c->read, buffer, (size_t)got);
    return got > 0 || (got < 0 && (errno == EAGAIN || errno == EINTR));
}

/* ---- ending ---- */

/* Whether it has ended, within so many milliseconds; it stays to be reaped, so that its group's number stays taken. */
static bool has_ended(kac_child *c, siginfo_t *how, double wait_ms) {
    const double until = kac_now_ms() + wait_ms;
    for (;;) {
        *how = (siginfo_t){0};
        if (waitid(P_PID, (id_t)c->pid, how, WEXITED | WNOHANG | WNOWAIT) != 0 && errno != EINTR) return true;
        drain_errors(c);
        if (how->si_pid != 0) return true;
        if (kac_now_ms() >= until) return false;
        nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
    }
}

void kac_child_stop(kac_child *c) {
    close_fd(&c->in);
    siginfo_t how;
    if (c->pid > 0) {
        close_fd(&c->out); /* one that goes on writing is told so */
        if (!has_ended(c, &how, GRACE_MS)) {
            kill(-c->pid, SIGTERM);
            (void)has_ended(c, &how, END_MS);
        }
        kill(-c->pid, SIGKILL); /* what is left of its group */
        kill(c->pid, SIGKILL);  /* it may have left that */
        while (waitpid(c->pid, NULL, 0) < 0 && errno == EINTR) continue;
        c->pid = 0;
    }
    close_fd(&c->out), close_fd(&c->err);
    kac_text_free(&c->read);
    kac_free(c->command);
    c->command = NULL;
}

/* "; it said: …" */
static char *last_words(const kac_child *c) {
    return c->said[0] == '\0' ? kac_strdup("") : kac_format("; it said: %s", c->said);
}

static kac_status fail_ended(kac_child *c) {
    siginfo_t how;
    close_fd(&c->in);
    const bool ended = has_ended(c, &how, GRACE_MS);
    drain_errors(c);
    char *said = last_words(c), what[64];
    if (!ended)
        snprintf(what, sizeof what, "closed its output");
    else if (how.si_pid == 0) /* somebody else reaps our children */
        snprintf(what, sizeof what, "ended");
    else if (how.si_code == CLD_EXITED)
        snprintf(what, sizeof what, "ended with exit code %d", how.si_status);
    else
        snprintf(what, sizeof what, "was ended by signal %d (%s)", how.si_status, strsignal(how.si_status));
    const kac_status s =
        KAC_FAIL(KAC_E_IO, "the command %.120s %s before it answered%s", c->command, what, said == NULL ? "" : said);
    kac_free(said);
    if (!ended) kill(-c->pid, SIGKILL);
    kac_child_stop(c);
    return s;
}

static kac_status fail_late(kac_child *c, double timeout_ms) {
    char *said = last_words(c);
    const kac_status s = KAC_FAIL(KAC_E_IO, "the command %.120s did not answer within %g s%s", c->command,
                                  timeout_ms / 1000, said == NULL ? "" : said);
    kac_free(said);
    kill(-c->pid, SIGKILL); /* it had its time */
    kac_child_stop(c);
    return s;
}

static kac_status fail_long(kac_child *c) {
    const kac_status s = KAC_FAIL(KAC_E_FORMAT, "the command %.120s answered with a line of more than %d bytes: %.60s…",
                                  c->command, (int)MAX_LINE, c->read.s + c->n_used);
    kill(-c->pid, SIGKILL);
    kac_child_stop(c);
    return s;
}

/* ---- asking ---- */

/* A whole line that was read already: *answer, ended by 0. */
static bool next_line(kac_child *c, char **answer, size_t *n_looked) {
    char *start = c->read.s == NULL ? NULL : c->read.s + c->n_used;
    const size_t n = c->read.n - c->n_used;
    char *end = n > *n_looked ? memchr(start + *n_looked, '\n', n - *n_looked) : NULL;
    *n_looked = n;
    if (end == NULL) return false;
    *end = '\0';
    if (end > start && end[-1] == '\r') end[-1] = '\0';
    c->n_used += (size_t)(end + 1 - start);
    *answer = start;
    return true;
}

/* Drops the lines that were given out. */
static void forget_used(kac_child *c) {
    if (c->n_used == 0) return;
    memmove(c->read.s, c->read.s + c->n_used, c->read.n - c->n_used + 1);
    c->read.n -= c->n_used, c->n_used = 0;
}

/* Writes on as far as it goes. A program that does not read may still answer. */
static void put_input(kac_child *c, const char *line, size_t n, size_t *n_put) {
    const bool newline = *n_put >= n;
    const ssize_t put = write_quietly(c->in, newline ? "\n" : line + *n_put, newline ? 1 : n - *n_put);
    if (put > 0) *n_put += (size_t)put;
    if (put < 0 && errno != EAGAIN && errno != EINTR) close_fd(&c->in);
}

kac_status kac_child_ask(kac_child *c, const char *line, size_t n, char **answer, double timeout_ms) {
    if (c->pid <= 0) return KAC_FAIL(KAC_E_IO, "the outside program has ended");
    const size_t n_wanted = n > 0 ? n + 1 : 0;
    const double until = kac_now_ms() + timeout_ms;
    size_t n_put = 0, n_looked = 0;
    forget_used(c);
    for (;;) {
        if (n_put >= n_wanted && next_line(c, answer, &n_looked)) return KAC_OK;
        if (c->read.failed) return KAC_FAIL(KAC_E_MEMORY, "out of memory for what %.120s says", c->command);
        if (c->read.n - c->n_used > MAX_LINE) return fail_long(c);
        const double left = until - kac_now_ms();
        if (left <= 0) return fail_late(c, timeout_ms);
        struct pollfd fds[] = {{.fd = c->out, .events = POLLIN},
                               {.fd = c->err, .events = POLLIN},
                               {.fd = n_put < n_wanted ? c->in : -1, .events = POLLOUT}};
        if (poll(fds, 3, (int)KAC_MIN(left + 1, 60000)) < 0 && errno != EINTR)
            return KAC_FAIL(KAC_E_IO, "cannot wait for %.120s: %s", c->command, strerror(errno));
        if (fds[1].revents != 0) drain_errors(c);
        if (fds[0].revents != 0 && !take_output(c)) return fail_ended(c);
        if (fds[2].revents != 0 && c->in >= 0) put_input(c, line, n, &n_put);
        if (c->in < 0) n_put = n_wanted;
    }
}
