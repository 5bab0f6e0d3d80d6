#include "progress.h"
#include "cli.h"
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

enum { TICK_MS = 250, QUIET_MS = 1000, BAR = 24 };

struct kac_cli_progress {
    const char *command; /* "generate", "tune" */
    bool shown;          /* stderr is a terminal */
    pthread_t ticker;
    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t wake;
    bool closing;
    char phase[32];
    double phase_ms, first_step_ms, last_step_ms;
    int first_step, i_step, n_steps; /* n_steps 0: no step yet */
    double best, ess;                /* ess: mean over the groups of this step */
    int n_ess, n_particles;
    double share, first_share; /* of rounds: what is done, and was when this process began; NAN: steps */
    double reward;
    int64_t nfe, nfe_budget; /* of a search: of its groups together */
    bool search, drawn;
    kac_bench_progress bench; /* n_cells 0: none */
    char label[64];
};

static volatile sig_atomic_t stop_asked;
static void on_signal(int signal) {
    (void)signal;
    stop_asked = 1;
}

static void add_time(char *out, size_t n, double seconds) {
    if (seconds < 90)
        snprintf(out, n, "%.0f s", seconds);
    else if (seconds < 5400)
        snprintf(out, n, "%.0f min", seconds / 60);
    else
        snprintf(out, n, "%.1f h", seconds / 3600);
}

static void fill_bar(char bar[3 * BAR + 1], double share) {
    const int full = (int)(BAR * share);
    for (int i = 0; i < BAR; i++) snprintf(bar + 3 * i, 4, "%s", i < full ? "━" : "─");
}

/* Rounds are as many as there are, or as time allows. */
static void compose_rounds(const kac_cli_progress *p, char *line, size_t n) {
    char bar[3 * BAR + 1], left[32] = "";
    const int n_done = p->i_step - p->first_step;
    const double spent = (p->last_step_ms - p->first_step_ms) / 1000, gained = p->share - p->first_share;
    fill_bar(bar, p->share);
    size_t used = (size_t)snprintf(line, n, "%s round %d", bar, p->i_step);
    if (p->n_steps < 1000000) used += (size_t)snprintf(line + used, n - used, "/%d", p->n_steps);
    if (n_done > 0 && gained > 0) {
        add_time(left, sizeof left,
                 KAC_MAX(0, spent * (1 - p->share) / gained - (kac_now_ms() - p->last_step_ms) / 1000));
        used += (size_t)snprintf(line + used, n - used, "  %.2f s/round  %s left", spent / n_done, left);
    }
    if (isfinite(p->reward)) snprintf(line + used, n - used, "  reward %.4g", p->reward);
}

/* Of a search, as much of its budget as is spent. */
static void compose_search(const kac_cli_progress *p, char *line, size_t n) {
    char bar[3 * BAR + 1], left[32] = "";
    const double spent = (p->last_step_ms - p->first_step_ms) / 1000, gained = p->share - p->first_share;
    fill_bar(bar, KAC_MIN(p->share, 1));
    size_t used = (size_t)snprintf(line, n, "%s %lld", bar, (long long)p->nfe);
    if (p->nfe_budget > 0) used += (size_t)snprintf(line + used, n - used, "/%lld", (long long)p->nfe_budget);
    used += (size_t)snprintf(line + used, n - used, " NFE");
    if (gained > 0 && p->share < 1) {
        add_time(left, sizeof left,
                 KAC_MAX(0, spent * (1 - p->share) / gained - (kac_now_ms() - p->last_step_ms) / 1000));
        used += (size_t)snprintf(line + used, n - used, "  %s left", left);
    }
    if (isfinite(p->best)) snprintf(line + used, n - used, "  best %.4g", p->best);
}

/* Cells of a bench; what is left by the work that this process has seen done. */
static void compose_bench(const kac_cli_progress *p, char *line, size_t n) {
    char bar[3 * BAR + 1], left[32] = "";
    const kac_bench_progress *b = &p->bench;
    const double spent = (p->last_step_ms - p->first_step_ms) / 1000;
    fill_bar(bar, (double)b->n_done / (double)b->n_cells);
    size_t used = (size_t)snprintf(line, n, "%s %lld/%lld", bar, (long long)b->n_done, (long long)b->n_cells);
    if (b->share > 0 && b->share < 1) {
        add_time(left, sizeof left,
                 KAC_MAX(0, spent * (1 - b->share) / b->share - (kac_now_ms() - p->last_step_ms) / 1000));
        used += (size_t)snprintf(line + used, n - used, "  %s left", left);
    }
    if (p->label[0] != '\0')
        used += (size_t)snprintf(line + used, n - used, "  %s, %g %s, seed %lld", p->label, b->budget, b->unit,
                                 (long long)b->seed);
    if (b->n_failed > 0) snprintf(line + used, n - used, "  %lld failed", (long long)b->n_failed);
}

/* The line as it should stand now; "" for nothing. */
static void compose(const kac_cli_progress *p, char *line, size_t n) {
    const double now = kac_now_ms();
    line[0] = '\0';
    if (p->bench.n_cells > 0) {
        if (stop_asked)
            snprintf(line, n, "stopping; the pass in hand is not kept (Ctrl-C again: at once)");
        else
            compose_bench(p, line, n);
        return;
    }
    if (stop_asked && p->n_steps > 0) {
        if (p->search)
            snprintf(line, n, "ending the search with what it has found (Ctrl-C again: at once)");
        else
            snprintf(line, n, "stopping after %s %d (Ctrl-C again: at once)", isfinite(p->share) ? "round" : "step",
                     p->i_step + 1);
        return;
    }
    if (p->n_steps == 0 || (strcmp(p->phase, "steps") != 0 && strcmp(p->phase, "rounds") != 0)) {
        if (p->phase[0] != '\0' && now - p->phase_ms >= QUIET_MS)
            snprintf(line, n, "%s %.0f s", p->phase, (now - p->phase_ms) / 1000);
        return;
    }
    char bar[3 * BAR + 1] = "", left[32] = "";
    if (isfinite(p->share)) {
        (p->search ? compose_search : compose_rounds)(p, line, n);
        return;
    }
    const int done = KAC_MIN(p->i_step, p->n_steps);
    fill_bar(bar, (double)done / p->n_steps);
    const int n_done = p->i_step - p->first_step;
    const double each = n_done > 0 ? (p->last_step_ms - p->first_step_ms) / 1000 / n_done : NAN;
    size_t used = (size_t)snprintf(line, n, "%s %d/%d", bar, done, p->n_steps);
    if (isfinite(each)) {
        add_time(left, sizeof left, KAC_MAX(0, each * (p->n_steps - done) - (now - p->last_step_ms) / 1000));
        used += (size_t)snprintf(line + used, n - used, "  %.2f s/it  %s left", each, left);
    }
    if (isfinite(p->best)) used += (size_t)snprintf(line + used, n - used, "  best %.4g", p->best);
    if (p->n_ess > 0) snprintf(line + used, n - used, "  ESS %.1f/%d", p->ess / p->n_ess, p->n_particles);
}

/* At most `columns` characters of a UTF-8 line. */
static void clip(char *line, int columns) {
    char *s = line;
    for (; *s != '\0'; s++)
        if (((unsigned char)*s & 0xc0) != 0x80 && columns-- <= 0) break;
    *s = '\0';
}

static void draw(kac_cli_progress *p) {
    char line[512];
    struct winsize size;
    compose(p, line, sizeof line);
    const int columns = ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
    clip(line, columns - 1);
    if (line[0] == '\0' && !p->drawn) return;
    fprintf(stderr, "\r\033[K%s", line);
    fflush(stderr);
    p->drawn = line[0] != '\0';
}

static void *tick(void *self) {
    kac_cli_progress *p = self;
    pthread_mutex_lock(&p->lock);
    while (!p->closing) {
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += TICK_MS * 1000000L;
        until.tv_sec += until.tv_nsec / 1000000000L;
        until.tv_nsec %= 1000000000L;
        pthread_cond_timedwait(&p->wake, &p->lock, &until);
        if (!p->closing) draw(p);
    }
    pthread_mutex_unlock(&p->lock);
    return NULL;
}

static void say(void *self, const char *line) {
    kac_cli_progress *p = self;
    pthread_mutex_lock(&p->lock);
    if (p->drawn) fprintf(stderr, "\r\033[K");
    p->drawn = false;
    kac_cli_complain(p->command, line);
    pthread_mutex_unlock(&p->lock);
}

static void phase(void *self, const char *name) {
    kac_cli_progress *p = self;
    pthread_mutex_lock(&p->lock);
    snprintf(p->phase, sizeof p->phase, "%s", name);
    p->phase_ms = kac_now_ms();
    pthread_mutex_unlock(&p->lock);
}

static void step(void *self, const kac_step_event *e, double best) {
    kac_cli_progress *p = self;
    const double now = kac_now_ms();
    pthread_mutex_lock(&p->lock);
    if (p->n_steps == 0) {
        p->first_step = e->i_step;
        p->first_step_ms = now;
        p->n_steps = e->n_steps;
    }
    if (e->group == 0) {
        p->ess = 0;
        p->n_ess = 0;
    }
    if (isfinite(e->ess)) p->ess += e->ess, p->n_ess++;
    p->i_step = e->i_step;
    p->last_step_ms = now;
    p->n_particles = e->n_particles;
    p->best = best;
    if (p->shown) draw(p);
    pthread_mutex_unlock(&p->lock);
}

static void search(void *self, const kac_search_event *e, double best) {
    kac_cli_progress *p = self;
    const double now = kac_now_ms(), of_nfe = e->nfe_budget > 0 ? (double)e->nfe / (double)e->nfe_budget : 0,
                 of_time = e->seconds_budget > 0 ? e->seconds / e->seconds_budget : 0;
    pthread_mutex_lock(&p->lock);
    p->share = KAC_MAX(of_nfe, of_time);
    p->nfe = e->nfe * e->n_groups, p->nfe_budget = e->nfe_budget * e->n_groups;
    if (p->n_steps == 0) {
        p->search = true;
        p->n_steps = 1;
        p->first_step_ms = now;
        p->first_share = p->share;
    }
    p->last_step_ms = now;
    p->best = best;
    if (p->shown) draw(p);
    pthread_mutex_unlock(&p->lock);
}

static void bench_progress(void *self, const kac_bench_progress *b) {
    kac_cli_progress *p = self;
    const double now = kac_now_ms();
    pthread_mutex_lock(&p->lock);
    if (p->bench.n_cells == 0) p->first_step_ms = now;
    p->bench = *b;
    snprintf(p->label, sizeof p->label, "%s", b->label == NULL ? "" : b->label);
    p->bench.label = NULL; /* lent for the call */
    p->last_step_ms = now;
    if (p->shown) draw(p);
    pthread_mutex_unlock(&p->lock);
}

static void round_done(void *self, const kac_tune_report *r, int64_t n_rounds, double share) {
    kac_cli_progress *p = self;
    const double now = kac_now_ms();
    pthread_mutex_lock(&p->lock);
    if (p->n_steps == 0) {
        p->first_step = (int)r->round;
        p->first_step_ms = now;
        p->first_share = share;
        p->n_steps = (int)n_rounds;
    }
    p->i_step = (int)r->round;
    p->last_step_ms = now;
    p->share = share;
    p->reward = r->reward_mean;
    if (p->shown) draw(p);
    pthread_mutex_unlock(&p->lock);
}

static bool cancelled(void *self) {
    (void)self;
    return stop_asked != 0;
}

kac_cli_progress *kac_cli_progress_open(const char *command) {
    kac_cli_progress *p = kac_alloc(sizeof *p);
    if (p == NULL) return NULL;
    p->command = command;
    p->best = p->share = p->reward = NAN;
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->wake, NULL);
    p->shown = isatty(STDERR_FILENO) != 0;
    if (p->shown && pthread_create(&p->ticker, NULL, tick, p) != 0) p->shown = false;
    return p;
}

void kac_cli_progress_close(kac_cli_progress *p) {
    if (p == NULL) return;
    if (p->shown) {
        pthread_mutex_lock(&p->lock);
        p->closing = true;
        pthread_cond_signal(&p->wake);
        pthread_mutex_unlock(&p->lock);
        pthread_join(p->ticker, NULL);
        if (p->drawn) fprintf(stderr, "\r\033[K");
    }
    pthread_mutex_destroy(&p->lock);
    pthread_cond_destroy(&p->wake);
    kac_free(p);
}

kac_generate_hooks kac_cli_progress_hooks(kac_cli_progress *p) {
    return (kac_generate_hooks){
        .self = p, .say = say, .phase = phase, .step = step, .search = search, .cancelled = cancelled};
}

kac_tune_hooks kac_cli_progress_tune_hooks(kac_cli_progress *p) {
    return (kac_tune_hooks){.self = p, .say = say, .phase = phase, .round = round_done, .cancelled = cancelled};
}

kac_bench_hooks kac_cli_progress_bench_hooks(kac_cli_progress *p) {
    return (kac_bench_hooks){.self = p, .say = say, .phase = phase, .progress = bench_progress, .cancelled = cancelled};
}
