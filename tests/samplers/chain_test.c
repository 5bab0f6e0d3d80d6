/* A finite chain that can be enumerated: four tokens of three symbols, all hidden at first; each step uncovers some of them, and a hidden
 * token's law depends on its left neighbour as far as that is known. The law over the 81 finished words is found by summing over all 256
 * states, tilted by a table of rewards, and compared word by word with every method that claims the tilted law: methods see processes alone,
 * so what holds for mixtures and pictures must hold here. */
#include "exact.h"
#include <kac/rng.h>

enum { TOKENS = 4, HIDDEN = 3, STATES = 256, WORDS = 81, STEPS = 4, MOST = 60000 };

static int token_of(int state, int i) {
    return state >> (2 * i) & 3;
}

static int with_token(int state, int i, int token) {
    return (state & ~(3 << (2 * i))) | token << (2 * i);
}

/* P(token i = symbol | what is known of the word). */
static double token_law(int state, int i, int symbol) {
    static const double taste[TOKENS][3] = {{0.2, 0.5, 0.3}, {0.4, 0.4, 0.2}, {0.3, 0.3, 0.4}, {0.1, 0.3, 0.6}};
    const int left = i == 0 ? HIDDEN : token_of(state, i - 1);
    double p[3], sum = 0;
    for (int s = 0; s < 3; s++) sum += p[s] = taste[i][s] * (left == HIDDEN ? 1.0 : s == left ? 2.5 : 0.8);
    return p[symbol] / sum;
}

/* A hidden token is uncovered at step i_step with this probability: all are, in the end. */
static double uncover(int i_step) {
    return 1.0 / (STEPS - i_step);
}

/* What is known, the rest by its likeliest symbol. */
static int completion(int state) {
    for (int i = 0; i < TOKENS; i++) {
        int best = 0;
        if (token_of(state, i) != HIDDEN) continue;
        for (int s = 1; s < 3; s++) best = token_law(state, i, s) > token_law(state, i, best) ? s : best;
        state = with_token(state, i, best);
    }
    return state;
}

static double reward_of(int word) {
    double r = 0;
    for (int i = 0; i < TOKENS; i++) r += cos(1.3 * i + 2.1 * token_of(word, i));
    return r + (token_of(word, 0) == token_of(word, 3) ? 0.7 : -0.4);
}

/* ---- the process ---- */

typedef struct words {
    kac_process process;
    uint8_t state[MOST], spare[MOST];
} words;

static kac_status start(kac_process *p, const int *slots, int n) {
    words *w = p->self;
    for (int i = 0; i < n; i++) w->state[slots[i]] = STATES - 1;
    return KAC_OK;
}

static kac_status predict(kac_process *p, int i_step, const int *slots, int n) {
    (void)p, (void)i_step, (void)slots, (void)n;
    return KAC_OK;
}

static kac_status step(kac_process *p, int i_step, const int *from, const int *to, int n) {
    words *w = p->self;
    const kac_key key = {7, KAC_PURPOSE_STEP, (uint32_t)i_step};
    for (int i = 0; i < n; i++) {
        const int before = w->state[from[i]];
        int after = before;
        for (int t = 0; t < TOKENS; t++) {
            double u = kac_rng_uniform(key, (uint32_t)to[i], 2 * t + 1);
            int symbol = 0;
            if (token_of(before, t) != HIDDEN || kac_rng_uniform(key, (uint32_t)to[i], 2 * t) >= uncover(i_step))
                continue;
            for (double sum = token_law(before, t, 0); symbol < 2 && sum <= u;) sum += token_law(before, t, ++symbol);
            after = with_token(after, t, symbol);
        }
        w->state[to[i]] = (uint8_t)after;
    }
    return KAC_OK;
}

static kac_status copy(kac_process *p, const int *from, const int *to, int n) {
    words *w = p->self;
    for (int i = 0; i < n; i++) w->spare[i] = w->state[from[i]];
    for (int i = 0; i < n; i++) w->state[to[i]] = w->spare[i];
    return KAC_OK;
}

static kac_status score(kac_reward *r, kac_process *p, const int *slots, int n, kac_stage stage, double *out) {
    const words *w = p->self;
    (void)r, (void)stage;
    for (int i = 0; i < n; i++) out[i] = reward_of(completion(w->state[slots[i]]));
    return KAC_OK;
}

static kac_process *open_words(words *w, int n_groups, int k) {
    w->process = (kac_process){.self = w,
                               .n_steps = STEPS,
                               .n_groups = n_groups,
                               .n_per_group = k,
                               .stochastic = true,
                               .n_state = TOKENS,
                               .start = start,
                               .predict = predict,
                               .step = step,
                               .copy = copy};
    return &w->process;
}

/* ---- its law, by enumeration ---- */

/* P(after | before) of one step. */
static double transition(int before, int after, int i_step) {
    double p = 1;
    for (int t = 0; t < TOKENS; t++) {
        const int b = token_of(before, t), a = token_of(after, t);
        if (b != HIDDEN)
            p *= a == b;
        else
            p *= a == HIDDEN ? 1 - uncover(i_step) : uncover(i_step) * token_law(before, t, a);
    }
    return p;
}

static int words_list[WORDS];

static int word_index(int state) {
    int index = 0;
    for (int t = TOKENS - 1; t >= 0; t--) index = 3 * index + token_of(state, t);
    return index;
}

/* The tilted law of the words; returns log Z. */
static double tilted_law(double lambda, double law[WORDS]) {
    double p[STATES] = {0}, next[STATES], z = 0;
    p[STATES - 1] = 1;
    for (int i_step = 0; i_step < STEPS; i_step++) {
        memset(next, 0, sizeof next);
        for (int b = 0; b < STATES; b++)
            for (int a = 0; p[b] > 0 && a < STATES; a++) next[a] += p[b] * transition(b, a, i_step);
        memcpy(p, next, sizeof p);
    }
    double all = 0;
    for (int s = 0; s < STATES; s++) {
        bool hidden = false;
        for (int t = 0; t < TOKENS; t++) hidden |= token_of(s, t) == HIDDEN;
        all += p[s];
        if (hidden) CHECK(p[s] == 0);
        if (hidden) continue;
        words_list[word_index(s)] = s;
        z += law[word_index(s)] = p[s] * exp(lambda * reward_of(s));
    }
    CHECK_NEAR(all, 1, 1e-12);
    for (int i = 0; i < WORDS; i++) law[i] /= z;
    return log(z);
}

static double is_word(kac_process *p, int slot, int which) {
    const words *w = p->self;
    return word_index(w->state[slot]) == which;
}

/* Z-hat, E r, and chi-square over the words of means with their own errors. */
static void test_claims(double lambda) {
    enum { GROUPS = 7500, K = 8 };
    static words w;
    static exact_moments have;
    double law[WORDS];
    const double log_z = tilted_law(lambda, law);
    kac_reward reward = {.name = "table", .score = score};
    printf("81 words, lambda %g, log Z %.6f\n", lambda, log_z);
    for (int i = 0; i < KAC_COUNT_OF(exact_claims); i++) {
        if (exact_claims[i].guided) continue;
        double chi2 = 0;
        int n = 0;
        exact_measure(&have, open_words(&w, GROUPS, K), &reward, exact_claims[i].how, lambda, log_z, WORDS, is_word);
        for (int j = 0; j < WORDS; j++) {
            if (law[j] * GROUPS * K < 100) continue; /* a mean of few draws is not normal */
            chi2 += pow((have.f[j].mean - law[j]) / exact_error(&have.f[j]), 2);
            n++;
        }
        printf(" %s: chi² %.1f over %d words\n", exact_claims[i].how, chi2, n);
        CHECK(exact_agrees(&have.z, 1.0, 5, 0.06, "E Z-hat / Z"));
        CHECK(n > 40 && chi2 < n + 5 * sqrt(2.0 * n));
    }
}

/* A method that is not exact is told by the same numbers. */
static void test_power(void) {
    enum { GROUPS = 7500, K = 8 };
    static words w;
    static exact_moments have;
    double law[WORDS], chi2 = 0;
    tilted_law(1, law);
    kac_reward reward = {.name = "table", .score = score};
    exact_measure(&have, open_words(&w, GROUPS, K), &reward, "fk: ess-threshold=0.5", 1.15, tilted_law(1.15, law),
                  WORDS, is_word);
    tilted_law(1, law);
    for (int j = 0; j < WORDS; j++)
        if (law[j] * GROUPS * K >= 50) chi2 += pow((have.f[j].mean - law[j]) / exact_error(&have.f[j]), 2);
    printf("lambda 1.15 held against 1: chi² %.1f\n", chi2);
    CHECK(chi2 > 81 + 8 * sqrt(162));
}

int main(void) {
    test_claims(0.4);
    test_power();
    return check_done();
}
