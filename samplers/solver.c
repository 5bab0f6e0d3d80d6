#include "samplers/solver.h"
#include "base/base.h"
#include "samplers/solver_table.h"
#include <math.h>
#include <string.h>

/* ---- kinds ---- */

typedef enum levels_kind { LEVELS_WHOLE, LEVELS_SIGMA, LEVELS_DPM, LEVELS_DISTILLED, LEVELS_FLOW } levels_kind;

typedef struct family {
    const char *name;
    levels_kind levels;
    kac_status (*rows)(kac_build *b);
    bool has_eta;
    kac_solver_kind noisy; /* the nearest one with a transition density */
} family;

static const family families[] = {
    [KAC_SOLVER_AUTO] = {.name = "auto"},
    [KAC_SOLVER_DDIM] = {"ddim", LEVELS_WHOLE, kac_rows_ddim, true, KAC_SOLVER_DDIM},
    [KAC_SOLVER_DDPM] = {"ddpm", LEVELS_WHOLE, kac_rows_ddpm, false, KAC_SOLVER_DDPM},
    [KAC_SOLVER_PNDM] = {"pndm", LEVELS_WHOLE, kac_rows_pndm, false, KAC_SOLVER_DDIM},
    [KAC_SOLVER_LMS] = {"lms", LEVELS_SIGMA, kac_rows_lms, false, KAC_SOLVER_EULER_ANCESTRAL},
    [KAC_SOLVER_EULER] = {"euler", LEVELS_SIGMA, kac_rows_euler, false, KAC_SOLVER_EULER_ANCESTRAL},
    [KAC_SOLVER_EULER_ANCESTRAL] = {"euler-ancestral", LEVELS_SIGMA, kac_rows_euler, true, KAC_SOLVER_EULER_ANCESTRAL},
    [KAC_SOLVER_HEUN] = {"heun", LEVELS_SIGMA, kac_rows_heun, false, KAC_SOLVER_EULER_ANCESTRAL},
    [KAC_SOLVER_DPM2] = {"dpm2", LEVELS_SIGMA, kac_rows_dpm2, false, KAC_SOLVER_DPM2_ANCESTRAL},
    [KAC_SOLVER_DPM2_ANCESTRAL] = {"dpm2-ancestral", LEVELS_SIGMA, kac_rows_dpm2, true, KAC_SOLVER_DPM2_ANCESTRAL},
    [KAC_SOLVER_DPMPP_2M] = {"dpm++2m", LEVELS_DPM, kac_rows_dpm, false, KAC_SOLVER_DPMPP_2M_SDE},
    [KAC_SOLVER_DPMPP_2M_SDE] = {"dpm++2m-sde", LEVELS_DPM, kac_rows_dpm, false, KAC_SOLVER_DPMPP_2M_SDE},
    [KAC_SOLVER_DPMPP_2S] = {"dpm++2s", LEVELS_DPM, kac_rows_dpm_single, false, KAC_SOLVER_DPMPP_2S_SDE},
    [KAC_SOLVER_DPMPP_2S_SDE] = {"dpm++2s-sde", LEVELS_DPM, kac_rows_dpm_single, false, KAC_SOLVER_DPMPP_2S_SDE},
    [KAC_SOLVER_DEIS] = {"deis", LEVELS_DPM, kac_rows_deis, false, KAC_SOLVER_DPMPP_2M_SDE},
    [KAC_SOLVER_UNIPC] = {"unipc", LEVELS_DPM, kac_rows_unipc, false, KAC_SOLVER_DPMPP_2M_SDE},
    [KAC_SOLVER_LCM] = {"lcm", LEVELS_DISTILLED, kac_rows_lcm, false, KAC_SOLVER_LCM},
    [KAC_SOLVER_TCD] = {"tcd", LEVELS_DISTILLED, kac_rows_tcd, true, KAC_SOLVER_TCD},
    [KAC_SOLVER_FLOW_EULER] = {"flow-euler", LEVELS_FLOW, kac_rows_flow, false, KAC_SOLVER_FLOW_EULER_SDE},
    [KAC_SOLVER_FLOW_EULER_SDE] = {"flow-euler-sde", LEVELS_FLOW, kac_rows_flow, false, KAC_SOLVER_FLOW_EULER_SDE},
    [KAC_SOLVER_FLOW_HEUN] = {"flow-heun", LEVELS_FLOW, kac_rows_flow, false, KAC_SOLVER_FLOW_EULER_SDE},
};

static const struct {
    const char *name;
    kac_solver_kind kind;
} aliases[] = {{"euler_a", KAC_SOLVER_EULER_ANCESTRAL},
               {"euler-a", KAC_SOLVER_EULER_ANCESTRAL},
               {"euler_ancestral", KAC_SOLVER_EULER_ANCESTRAL},
               {"dpmpp2m", KAC_SOLVER_DPMPP_2M},
               {"dpm++2m_sde", KAC_SOLVER_DPMPP_2M_SDE},
               {"dpmpp2m_sde", KAC_SOLVER_DPMPP_2M_SDE},
               {"plms", KAC_SOLVER_PNDM},
               {"kdpm2", KAC_SOLVER_DPM2},
               {"dpm2_a", KAC_SOLVER_DPM2_ANCESTRAL},
               {"dpm2-a", KAC_SOLVER_DPM2_ANCESTRAL},
               {"uni-pc", KAC_SOLVER_UNIPC},
               {"dpmpp2s", KAC_SOLVER_DPMPP_2S}};

const char *kac_solver_name(kac_solver_kind kind) {
    return families[kind].name;
}

kac_solver_kind kac_solver_find(const char *name) {
    for (int i = 1; i < KAC_COUNT_OF(families); i++)
        if (strcmp(families[i].name, name) == 0) return (kac_solver_kind)i;
    for (int i = 0; i < KAC_COUNT_OF(aliases); i++)
        if (strcmp(aliases[i].name, name) == 0) return aliases[i].kind;
    return KAC_SOLVER_AUTO;
}

kac_solver_kind kac_solver_own(const kac_schedule *sch) {
    static const kac_solver_kind kinds[] = {
        [KAC_CLASS_DDIM] = KAC_SOLVER_DDIM,
        [KAC_CLASS_DDPM] = KAC_SOLVER_DDPM,
        [KAC_CLASS_PNDM] = KAC_SOLVER_PNDM,
        [KAC_CLASS_LMS] = KAC_SOLVER_LMS,
        [KAC_CLASS_EULER] = KAC_SOLVER_EULER,
        [KAC_CLASS_EULER_ANCESTRAL] = KAC_SOLVER_EULER_ANCESTRAL,
        [KAC_CLASS_HEUN] = KAC_SOLVER_HEUN,
        [KAC_CLASS_KDPM2] = KAC_SOLVER_DPM2,
        [KAC_CLASS_KDPM2_ANCESTRAL] = KAC_SOLVER_DPM2_ANCESTRAL,
        [KAC_CLASS_DPM_MULTISTEP] = KAC_SOLVER_DPMPP_2M,
        [KAC_CLASS_DPM_SINGLESTEP] = KAC_SOLVER_DPMPP_2S,
        [KAC_CLASS_DPM_SDE] = KAC_SOLVER_DPMPP_2M_SDE,
        [KAC_CLASS_DEIS] = KAC_SOLVER_DEIS,
        [KAC_CLASS_UNIPC] = KAC_SOLVER_UNIPC,
        [KAC_CLASS_LCM] = KAC_SOLVER_LCM,
        [KAC_CLASS_TCD] = KAC_SOLVER_TCD,
        [KAC_CLASS_FLOW_EULER] = KAC_SOLVER_FLOW_EULER,
        [KAC_CLASS_FLOW_HEUN] = KAC_SOLVER_FLOW_HEUN,
    };
    const kac_solver_kind kind = kinds[sch->class_kind];
    if (sch->sde && kind == KAC_SOLVER_DPMPP_2M) return KAC_SOLVER_DPMPP_2M_SDE;
    if (sch->sde && kind == KAC_SOLVER_DPMPP_2S) return KAC_SOLVER_DPMPP_2S_SDE;
    if (sch->stochastic && kind == KAC_SOLVER_FLOW_EULER) return KAC_SOLVER_FLOW_EULER_SDE;
    return kind;
}

kac_solver_kind kac_solver_noisy(const kac_schedule *sch) {
    return families[kac_solver_own(sch)].noisy;
}

kac_status kac_solver_need_density(const kac_solver *s, const char *who) {
    if (s->density) return KAC_OK;
    if (s->n_steps == 1)
        return KAC_FAIL(
            KAC_E_USAGE,
            "%s needs a solver whose steps draw noise, and a single step of %s draws none; use more --steps, "
            "or --steer best-of-n",
            who, families[s->kind].name);
    const bool flow = families[s->kind].levels == LEVELS_FLOW;
    return KAC_FAIL(
        KAC_E_USAGE,
        "%s needs a solver whose steps draw noise: %s draws none at these settings, so copies of a particle "
        "would stay equal; use --sampling-method %s, or --steer best-of-n",
        who, families[s->kind].name,
        flow ? "flow-euler-sde or dpm++2m-sde"
             : "ddim with --eta 1, ddpm, euler-ancestral, dpm2-ancestral, dpm++2m-sde, dpm++2s-sde (lcm, tcd "
               "for models distilled for them)");
}

/* ---- what is asked ---- */

static bool is_flow_class(const kac_schedule *sch) {
    return sch->class_kind == KAC_CLASS_FLOW_EULER || sch->class_kind == KAC_CLASS_FLOW_HEUN;
}

/* Another class's solver on this schedule: with the spacing that its own class has where the file names none. */
static kac_status adapt(kac_schedule *sch, kac_solver_kind kind) {
    const family *f = &families[kind];
    const bool flow = sch->prediction == KAC_PREDICT_FLOW || sch->sigmas == KAC_SIGMAS_FLOW || is_flow_class(sch);
    if (flow && f->levels != LEVELS_DPM && f->levels != LEVELS_FLOW)
        return KAC_FAIL(KAC_E_UNSUPPORTED,
                        "%s cannot run a flow model; use flow-euler, flow-euler-sde, flow-heun, dpm++2m, dpm++2m-sde, "
                        "unipc or deis",
                        f->name);
    if (!flow && f->levels == LEVELS_FLOW)
        return KAC_FAIL(KAC_E_UNSUPPORTED, "%s runs flow models only; this one predicts %s on a schedule of betas",
                        f->name, sch->prediction == KAC_PREDICT_V ? "v" : "noise or the sample");
    if (flow && f->levels == LEVELS_DPM) sch->sigmas = KAC_SIGMAS_FLOW;
    if (!sch->spacing_given && kind != kac_solver_own(sch))
        sch->spacing = f->levels == LEVELS_WHOLE ? KAC_SPACING_LEADING : KAC_SPACING_LINSPACE;
    if (f->rows == kac_rows_dpm_single) sch->spacing = KAC_SPACING_LINSPACE;
    return KAC_OK;
}

static int steps_asked(const kac_solver_options *o) {
    return o->timesteps != NULL ? o->n_timesteps : o->sigmas != NULL ? o->n_sigmas : o->n_steps;
}

static kac_status check_steps(const kac_schedule *sch, const kac_solver_options *o, const family *f) {
    const int n = steps_asked(o);
    if (n < 1 || n > sch->n_train)
        return KAC_FAIL(KAC_E_USAGE, "%d steps asked; this schedule takes 1 to %d", n, sch->n_train);
    if (o->begin < 0 || o->begin >= n) return KAC_FAIL(KAC_E_USAGE, "cannot start at step %d of %d", o->begin, n);
    if (!isnan(o->eta) && !(o->eta >= 0.0 && o->eta <= 10.0))
        return KAC_FAIL(KAC_E_USAGE,
                        "eta is %g; it must lie between 0 and 10 (1: as much noise as the training process)", o->eta);
    if (!isnan(o->eta) && !f->has_eta)
        return KAC_FAIL(KAC_E_USAGE,
                        "eta has no meaning for %s; it is an option of ddim, euler-ancestral, dpm2-ancestral and tcd",
                        f->name);
    if (o->sigmas != NULL && (f->levels != LEVELS_FLOW || o->timesteps != NULL))
        return KAC_FAIL(KAC_E_USAGE, "own sigmas are for the flow solvers, and instead of timesteps");
    return KAC_OK;
}

static kac_status check_timesteps(const kac_schedule *sch, const kac_solver_options *o, const family *f) {
    if (o->timesteps == NULL) return KAC_OK;
    const bool fractions = f->levels == LEVELS_SIGMA || f->levels == LEVELS_FLOW;
    if (sch->sigmas != KAC_SIGMAS_PLAIN && f->levels != LEVELS_WHOLE && f->levels != LEVELS_DISTILLED)
        return KAC_FAIL(KAC_E_USAGE,
                        "this schedule spreads sigmas itself (karras, …) and takes no timesteps of your own");
    if (f->rows == kac_rows_pndm)
        return KAC_FAIL(KAC_E_USAGE, "pndm takes no timesteps of your own: it steps by a fixed stride");
    for (int i = 0; i < o->n_timesteps; i++) {
        const double t = o->timesteps[i];
        if (!(t >= 0.0 && t < sch->n_train + (f->levels == LEVELS_FLOW)) || (!fractions && t != floor(t)))
            return KAC_FAIL(KAC_E_USAGE, "timestep %g must be one of 0 … %d", t, sch->n_train - 1);
        if (i > 0 && t >= o->timesteps[i - 1])
            return KAC_FAIL(KAC_E_USAGE, "timesteps must fall; %g follows %g", t, o->timesteps[i - 1]);
    }
    return KAC_OK;
}

/* ---- the table ---- */

static kac_status build_levels(kac_levels *l, const kac_schedule *sch, const kac_solver_options *o,
                               kac_solver_kind kind) {
    const levels_kind levels = families[kind].levels;
    if (levels == LEVELS_FLOW) return kac_levels_flow(l, sch, o, kind);
    if (o->timesteps != NULL) {
        const size_t n_bytes = (size_t)l->n * sizeof(double);
        kac_levels_by_spacing(l, sch, levels != LEVELS_SIGMA);
        l->own = memcmp(l->timestep, o->timesteps, n_bytes) != 0;
        memcpy(l->timestep, o->timesteps, n_bytes);
    } else if (levels == LEVELS_DISTILLED) {
        KAC_TRY(kac_levels_distilled(l, sch, o->strength));
    } else if (levels == LEVELS_DPM) {
        kac_levels_dpm(l, sch);
    } else {
        kac_levels_by_spacing(l, sch, levels != LEVELS_SIGMA);
    }
    for (int i = 0; i < l->n && (sch->sigmas == KAC_SIGMAS_PLAIN || levels != LEVELS_DPM); i++)
        if (l->timestep[i] < 0.0 || l->timestep[i] >= sch->n_train)
            return KAC_FAIL(KAC_E_USAGE,
                            "%d steps with this spacing and steps_offset %d reach timestep %g; the schedule has 0 "
                            "… %d; use fewer steps",
                            l->n, sch->steps_offset, l->timestep[i], sch->n_train - 1);
    if (levels == LEVELS_DPM) return kac_levels_sigmas_dpm(l, sch, kind, o->mu);
    if (levels == LEVELS_SIGMA) return kac_levels_sigmas_euler(l, sch, kind);
    return KAC_OK;
}

static double sum_of(const kac_sum *s) {
    double v = s->x + s->x0 + s->out;
    for (int j = 0; j < KAC_SOLVER_PAST; j++) v += s->past[j];
    return v;
}

static int past_of(const kac_sum *s) {
    int n = KAC_SOLVER_PAST;
    while (n > 0 && s->past[n - 1] == 0.0) n--;
    return n;
}

static kac_status check_row(kac_solver *s, int i) {
    const kac_solver_row *r = &s->rows[i];
    double sum = r->c_in + r->x0_x + r->x0_out + r->z + sum_of(&r->next);
    for (int j = 0; j < KAC_SOLVER_PAST; j++) sum += sum_of(&r->past[j]);
    if (!isfinite(sum) || !isfinite(r->timestep))
        return KAC_FAIL(
            KAC_E_UNSUPPORTED,
            "step %d of %s at timestep %g has no finite coefficients on this schedule; use other --steps or "
            "another solver_order",
            i, kac_solver_name(s->kind), r->timestep);
    s->n_past = KAC_MAX(s->n_past, past_of(&r->next));
    s->stochastic |= r->z != 0.0;
    return KAC_OK;
}

/* Of the rows that noise should be drawn in: all but the last step's, and of a step of dpm2-ancestral the second. */
static bool has_density(const kac_solver *s) {
    const bool two_calls = s->kind == KAC_SOLVER_DPM2_ANCESTRAL;
    for (int i = 0; i < s->n_steps - 1; i++)
        if (s->rows[i].z == 0.0 && !(two_calls && i % 2 == 0)) return false;
    return s->stochastic;
}

static kac_status check_rows(kac_solver *s) {
    for (int i = 0; i < s->n_steps; i++) KAC_TRY(check_row(s, i));
    for (int n = 0; n < s->n_past; n++) /* what is read of past[] may have come from further back in it */
        for (int i = 0; i < s->n_steps; i++)
            for (int j = 0; j < s->n_past; j++) s->n_past = KAC_MAX(s->n_past, past_of(&s->rows[i].past[j]));
    s->density = has_density(s);
    return KAC_OK;
}

static kac_status fill(kac_solver *s, kac_levels *l, const kac_schedule *sch, const kac_solver_options *o) {
    if (l->timestep == NULL || l->sigma == NULL || s->rows == NULL) return KAC_E_MEMORY;
    KAC_TRY(build_levels(l, sch, o, s->kind));
    if (o->begin >= l->n) return KAC_FAIL(KAC_E_USAGE, "cannot start at step %d of %d", o->begin, l->n);
    kac_build b = {.s = s, .sch = sch, .l = l, .first = o->begin, .eta = o->eta};
    s->init_noise_sigma = 1.0;
    KAC_TRY(families[s->kind].rows(&b));
    return check_rows(s);
}

kac_status kac_solver_init(kac_solver *s, const kac_schedule *schedule, const kac_solver_options *o) {
    *s = (kac_solver){.kind = o->kind == KAC_SOLVER_AUTO ? kac_solver_own(schedule) : o->kind};
    const family *f = &families[s->kind];
    kac_schedule sch = *schedule; /* alphas_cumprod stays the caller's */
    KAC_TRY(adapt(&sch, s->kind));
    KAC_TRY(check_steps(&sch, o, f));
    KAC_TRY(check_timesteps(&sch, o, f));
    kac_levels l = {.n = steps_asked(o)};
    s->n_asked = l.n;
    const size_t n_rows = (size_t)kac_rows_room(l.n);
    l.timestep = kac_alloc((size_t)l.n * sizeof(double));
    l.sigma = kac_alloc(((size_t)l.n + 1) * sizeof(double));
    s->rows = kac_alloc(n_rows * sizeof *s->rows);
    const kac_status status = fill(s, &l, &sch, o);
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
