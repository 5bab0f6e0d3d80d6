#include "samplers/solver.h"
#include "base/base.h"
#include "samplers/solver_table.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char *const solver_names[] = {"auto",    "ddim",       "ddpm", "euler", "euler-ancestral",
                                           "dpm++2m", "dpm++2m-sde"};

static const struct {
    const char *name;
    kac_solver_kind kind;
} solver_aliases[] = {{"euler_a", KAC_SOLVER_EULER_ANCESTRAL},         {"euler-a", KAC_SOLVER_EULER_ANCESTRAL},
                      {"euler_ancestral", KAC_SOLVER_EULER_ANCESTRAL}, {"dpmpp2m", KAC_SOLVER_DPMPP_2M},
                      {"dpm++2m_sde", KAC_SOLVER_DPMPP_2M_SDE},        {"dpmpp2m_sde", KAC_SOLVER_DPMPP_2M_SDE}};

const char *kac_solver_name(kac_solver_kind kind) {
    return solver_names[kind];
}

kac_solver_kind kac_solver_find(const char *name) {
    for (int i = 1; i < KAC_COUNT_OF(solver_names); i++)
        if (strcmp(solver_names[i], name) == 0) return (kac_solver_kind)i;
    for (int i = 0; i < KAC_COUNT_OF(solver_aliases); i++)
        if (strcmp(solver_aliases[i].name, name) == 0) return solver_aliases[i].kind;
    return KAC_SOLVER_AUTO;
}

static kac_solver_kind own_kind(const kac_schedule *sch) {
    switch (sch->class_kind) {
    case KAC_CLASS_DDPM:
        return KAC_SOLVER_DDPM;
    case KAC_CLASS_EULER:
        return KAC_SOLVER_EULER;
    case KAC_CLASS_EULER_ANCESTRAL:
        return KAC_SOLVER_EULER_ANCESTRAL;
    case KAC_CLASS_DPM_MULTISTEP:
        return sch->sde ? KAC_SOLVER_DPMPP_2M_SDE : KAC_SOLVER_DPMPP_2M;
    case KAC_CLASS_DDIM:
    case KAC_CLASS_OTHER:
        break;
    }
    return KAC_SOLVER_DDIM;
}

kac_status kac_row_predict(kac_solver_row *row, double eps[2], kac_prediction prediction) {
    const double a = row->alpha, b = row->sigma, norm = sqrt(a * a + b * b);
    switch (prediction) {
    case KAC_PREDICT_EPSILON:
        if (a <= 0.0)
            return KAC_FAIL(
                KAC_E_UNSUPPORTED,
                "timestep %g is pure noise, from which epsilon prediction says nothing about the sample; use a "
                "v_prediction model, or timestep_spacing leading",
                row->timestep);
        row->x0_x = 1.0 / a;
        row->x0_out = -b / a;
        eps[0] = 0.0;
        eps[1] = 1.0;
        break;
    case KAC_PREDICT_SAMPLE:
        row->x0_x = 0.0;
        row->x0_out = 1.0;
        eps[0] = b > 0.0 ? 1.0 / b : 0.0;
        eps[1] = b > 0.0 ? -a / b : 0.0;
        break;
    case KAC_PREDICT_V: /* v = (a · noise − b · x_0) / norm */
        row->x0_x = a / (norm * norm);
        row->x0_out = -b / norm;
        eps[0] = b / (norm * norm);
        eps[1] = a / norm;
        break;
    case KAC_PREDICT_FLOW: /* a + b = 1 */
        row->x0_x = 1.0;
        row->x0_out = -b;
        eps[0] = 1.0;
        eps[1] = a;
        break;
    }
    return KAC_OK;
}

static kac_status check_steps(const kac_schedule *sch, const kac_solver_options *o, kac_solver_kind kind) {
    const int n = o->timesteps != NULL ? o->n_timesteps : o->n_steps;
    if (n < 1 || n > sch->n_train)
        return KAC_FAIL(KAC_E_USAGE, "%d steps asked; this schedule takes 1 to %d", n, sch->n_train);
    if (o->begin < 0 || o->begin >= n) return KAC_FAIL(KAC_E_USAGE, "cannot start at step %d of %d", o->begin, n);
    if (!isnan(o->eta) && !(o->eta >= 0.0 && o->eta <= 10.0))
        return KAC_FAIL(KAC_E_USAGE,
                        "eta is %g; it must lie between 0 and 10 (1: as much noise as the training process)", o->eta);
    if (!isnan(o->eta) && kind != KAC_SOLVER_DDIM && kind != KAC_SOLVER_EULER_ANCESTRAL)
        return KAC_FAIL(KAC_E_USAGE, "eta has no meaning for %s; it is an option of ddim and euler-ancestral",
                        kac_solver_name(kind));
    return KAC_OK;
}

static kac_status check_timesteps(const kac_schedule *sch, const kac_solver_options *o, kac_solver_kind kind) {
    if (o->timesteps == NULL) return KAC_OK;
    const bool euler = kind == KAC_SOLVER_EULER || kind == KAC_SOLVER_EULER_ANCESTRAL;
    if (sch->sigmas != KAC_SIGMAS_PLAIN && kind != KAC_SOLVER_DDPM && kind != KAC_SOLVER_DDIM)
        return KAC_FAIL(KAC_E_USAGE,
                        "this schedule spreads sigmas itself (karras, …) and takes no timesteps of your own");
    for (int i = 0; i < o->n_timesteps; i++) {
        const double t = o->timesteps[i];
        if (!(t >= 0.0 && t < sch->n_train) || (!euler && t != floor(t)))
            return KAC_FAIL(KAC_E_USAGE, "timestep %g must be one of 0 … %d", t, sch->n_train - 1);
        if (i > 0 && t >= o->timesteps[i - 1])
            return KAC_FAIL(KAC_E_USAGE, "timesteps must fall; %g follows %g", t, o->timesteps[i - 1]);
    }
    return KAC_OK;
}

static kac_status build_levels(kac_levels *l, const kac_schedule *sch, const kac_solver_options *o,
                               kac_solver_kind kind) {
    const bool dpm = kind == KAC_SOLVER_DPMPP_2M || kind == KAC_SOLVER_DPMPP_2M_SDE;
    if (!dpm && (sch->prediction == KAC_PREDICT_FLOW || sch->sigmas == KAC_SIGMAS_FLOW))
        return KAC_FAIL(KAC_E_UNSUPPORTED, "%s cannot run a flow model; use dpm++2m or dpm++2m-sde",
                        kac_solver_name(kind));
    const bool euler = kind == KAC_SOLVER_EULER || kind == KAC_SOLVER_EULER_ANCESTRAL;
    if (o->timesteps != NULL) {
        const size_t n_bytes = (size_t)l->n * sizeof(double);
        kac_levels_by_spacing(l, sch, !euler);
        l->own = memcmp(l->timestep, o->timesteps, n_bytes) != 0;
        memcpy(l->timestep, o->timesteps, n_bytes);
    } else if (dpm)
        kac_levels_dpm(l, sch);
    else
        kac_levels_by_spacing(l, sch, !euler);
    for (int i = 0; i < l->n && (sch->sigmas == KAC_SIGMAS_PLAIN || !dpm); i++)
        if (l->timestep[i] < 0.0 || l->timestep[i] >= sch->n_train)
            return KAC_FAIL(KAC_E_USAGE,
                            "%d steps with this spacing and steps_offset %d reach timestep %g; the schedule has 0 "
                            "… %d; use fewer steps",
                            l->n, sch->steps_offset, l->timestep[i], sch->n_train - 1);
    if (dpm) return kac_levels_sigmas_dpm(l, sch);
    if (euler) return kac_levels_sigmas_euler(l, sch);
    return KAC_OK;
}

static kac_status build_rows(kac_solver *s, const kac_schedule *sch, const kac_levels *l, const kac_solver_options *o) {
    switch (s->kind) {
    case KAC_SOLVER_DDPM:
        return kac_rows_ddpm(s, sch, l);
    case KAC_SOLVER_EULER:
        return kac_rows_euler(s, sch, l, 0.0);
    case KAC_SOLVER_EULER_ANCESTRAL:
        return kac_rows_euler(s, sch, l, isnan(o->eta) ? 1.0 : o->eta);
    case KAC_SOLVER_DPMPP_2M:
    case KAC_SOLVER_DPMPP_2M_SDE:
        return kac_rows_dpm(s, sch, l, o->begin);
    case KAC_SOLVER_AUTO:
    case KAC_SOLVER_DDIM:
        break;
    }
    return kac_rows_ddim(s, sch, l, isnan(o->eta) ? 0.0 : o->eta);
}

static kac_status check_rows(kac_solver *s) {
    for (int i = 0; i < s->n_steps; i++) {
        const kac_solver_row *r = &s->rows[i];
        const double sum = r->c_in + r->x0_x + r->x0_out + r->x + r->x0 + r->out + r->prev + r->z + r->prev_x +
                           r->prev_x0 + r->prev_out;
        if (!isfinite(sum) || !isfinite(r->timestep))
            return KAC_FAIL(KAC_E_UNSUPPORTED,
                            "step %d of %s at timestep %g has no finite coefficients on this schedule", i,
                            kac_solver_name(s->kind), r->timestep);
        s->stochastic |= r->z != 0.0;
        s->history |= r->prev != 0.0;
    }
    return KAC_OK;
}

static kac_status fill(kac_solver *s, kac_levels *l, const kac_schedule *sch, const kac_solver_options *o) {
    if (l->timestep == NULL || l->sigma == NULL || s->rows == NULL) return KAC_E_MEMORY;
    KAC_TRY(build_levels(l, sch, o, s->kind));
    if (o->begin >= l->n) return KAC_FAIL(KAC_E_USAGE, "cannot start at step %d of %d", o->begin, l->n);
    KAC_TRY(build_rows(s, sch, l, o));
    s->n_steps = l->n - o->begin;
    memmove(s->rows, s->rows + o->begin, (size_t)s->n_steps * sizeof *s->rows);
    return check_rows(s);
}

kac_status kac_solver_init(kac_solver *s, const kac_schedule *sch, const kac_solver_options *o) {
    *s = (kac_solver){.kind = o->kind == KAC_SOLVER_AUTO ? own_kind(sch) : o->kind};
    KAC_TRY(check_steps(sch, o, s->kind));
    KAC_TRY(check_timesteps(sch, o, s->kind));
    kac_levels l = {.n = o->timesteps != NULL ? o->n_timesteps : o->n_steps};
    l.timestep = kac_alloc((size_t)l.n * sizeof(double));
    l.sigma = kac_alloc(((size_t)l.n + 1) * sizeof(double));
    s->rows = kac_alloc((size_t)l.n * sizeof *s->rows);
    const kac_status status = fill(s, &l, sch, o);
    kac_free(l.timestep);
    kac_free(l.sigma);
    if (status != KAC_OK) kac_solver_free(s);
    return status;
}

void kac_solver_free(kac_solver *s) {
    kac_free(s->rows);
    s->rows = NULL;
    s->n_steps = 0;
}

static int compare_floats(const void *a, const void *b) {
    const float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

void kac_solver_clip(const kac_solver *s, float *x0, int64_t n, float *scratch) {
    float limit = (float)s->clip, scale = 1.0f;
    if (s->threshold > 0.0) {
        for (int64_t i = 0; i < n; i++) scratch[i] = fabsf(x0[i]);
        qsort(scratch, (size_t)n, sizeof *scratch, compare_floats);
        const double rank = s->threshold * (double)(n - 1), low = floor(rank);
        const int64_t i = (int64_t)low, next = KAC_MIN(i + 1, n - 1);
        const double quantile = scratch[i] + (rank - low) * ((double)scratch[next] - scratch[i]);
        limit = (float)fmin(fmax(quantile, 1.0), s->threshold_max);
        scale = limit;
    }
    if (limit <= 0.0f) return;
    for (int64_t i = 0; i < n; i++) x0[i] = fminf(fmaxf(x0[i], -limit), limit) / scale;
}
