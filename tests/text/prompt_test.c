/* Prompts with weights and in chunks: the grammar against stable-diffusion-webui's own results, ids, and the arithmetic on token states. */
#include "check.h"
#include "text/prompt.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct piece {
    const char *text;
    double weight;
} piece;

static void check_parse(const char *prompt, int n, const piece *want) {
    kac_prompt_pieces p;
    if (!CHECK_OK(kac_prompt_parse(&p, prompt))) return;
    bool same = p.n == n;
    for (int i = 0; i < n && same; i++)
        same = p.items[i].n == strlen(want[i].text) &&
               memcmp(p.text + p.items[i].first, want[i].text, p.items[i].n) == 0 &&
               fabs(p.items[i].weight - want[i].weight) < 1e-14;
    if (!CHECK(same))
        for (int i = 0; i < p.n; i++)
            printf("  %s: \"%.*s\" %.17g\n", prompt, (int)p.items[i].n, p.text + p.items[i].first, p.items[i].weight);
    kac_prompt_pieces_free(&p);
}
#define PARSE(prompt, ...)                                                                                             \
    check_parse((prompt), (int)(sizeof((piece[]){__VA_ARGS__}) / sizeof(piece)), (piece[]){__VA_ARGS__})

static void test_grammar(void) {
    /* The examples of the grammar's own documentation. */
    PARSE("normal text", {"normal text", 1});
    PARSE("an (important) word", {"an ", 1}, {"important", 1.1}, {" word", 1});
    PARSE("(unbalanced", {"unbalanced", 1.1});
    PARSE("\\(literal\\]", {"(literal]", 1});
    PARSE("(unnecessary)(parens)", {"unnecessaryparens", 1.1});
    PARSE("a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).", {"a ", 1}, {"house", 1.5730000000000004}, {" ", 1.1},
          {"on", 1}, {" a ", 1.1}, {"hill", 0.55}, {", sun, ", 1.1}, {"sky", 1.4641000000000006}, {".", 1.1});
    PARSE("", {"", 1});
    PARSE("a [b] c", {"a ", 1}, {"b", 1 / 1.1}, {" c", 1});
    PARSE("a) b] :1.3) c", {"a) b] :1.3) c", 1}); /* nothing is open */
    PARSE("(a: 1.5 )b", {"a", 1.5}, {"b", 1});
    PARSE("(a:b:-0.5)", {"a:b", -0.5});
    PARSE("(a:)", {"a:", 1.1});
    PARSE("(a:+2)", {"a", 2});
    PARSE("back\\slash \\\\", {"backslash \\", 1});
    PARSE("\\", {"", 1});
    PARSE("()", {"", 1});
    PARSE("(größer:1.2)", {"größer", 1.2});
    kac_prompt_pieces p;
    CHECK_FAILS(kac_prompt_parse(&p, "(a:1.2.3)"), KAC_E_USAGE, "1.2.3");
    kac_prompt_pieces_free(&p);
    CHECK_FAILS(kac_prompt_parse(&p, "(a:.)"), KAC_E_USAGE, "no number");
    kac_prompt_pieces_free(&p);
    CHECK_FAILS(kac_prompt_parse(&p, "(a:99999)"), KAC_E_USAGE, "99999");
    kac_prompt_pieces_free(&p);
    CHECK_FAILS(kac_prompt_parse(&p, "((a:900):900)"), KAC_E_USAGE, "810000");
    kac_prompt_pieces_free(&p);
    CHECK(kac_prompt_has_weights("a (b:1.2)") && kac_prompt_has_weights("(a:b: 2 )"));
    CHECK(!kac_prompt_has_weights("a red circle: 3)") && !kac_prompt_has_weights("a (b) c:d"));
}

static void test_long_brackets(void) {
    enum { N = 40000 };
    char *text = malloc(2 * N + 1);
    for (int i = 0; i < N; i++) text[2 * i] = '[', text[2 * i + 1] = 'a';
    text[2 * N] = 0;
    kac_prompt_pieces p;
    CHECK_FAILS(kac_prompt_parse(&p, text), KAC_E_USAGE, "80000 bytes");
    kac_prompt_pieces_free(&p);
    text[8000] = 0;
    CHECK_OK(kac_prompt_parse(&p, text)); /* weights fall to 0 */
    CHECK(p.n >= 1 && fabs(p.items[0].weight - 1 / 1.1) < 1e-12);
    kac_prompt_pieces_free(&p);
    free(text);
}

static bool same_ids(const kac_prompt_ids *p, const kac_prompt_ids *q) {
    const size_t n = (size_t)(p->n_chunks * p->n_each);
    return p->n_chunks == q->n_chunks && p->n_each == q->n_each && memcmp(p->ids, q->ids, n * sizeof *p->ids) == 0;
}

static void test_ids(const kac_tokenizer *t) {
    enum { EACH = 8 };
    const char *text = "a red circle above a blue square";
    int32_t plain[EACH], long_ids[32];
    kac_tokens used;
    CHECK_OK(kac_tokenizer_encode(plain, EACH, &used, t, text, strlen(text)));
    kac_prompt_ids p, q;
    CHECK_OK(kac_prompt_encode(&p, t, text, EACH, (kac_prompt_options){0}));
    CHECK(p.n_chunks == 1 && !p.weighted && p.n_cut == used.n_cut && p.n_cut > 0);
    CHECK(memcmp(p.ids, plain, sizeof plain) == 0);
    kac_prompt_ids_free(&p);

    CHECK_OK(kac_tokenizer_encode(long_ids, 32, &used, t, text, strlen(text)));
    const int n_text = used.n - 2;
    CHECK_OK(kac_prompt_encode(&p, t, text, EACH, (kac_prompt_options){.chunks = true}));
    CHECK(p.n_chunks == 2 && p.n_cut == 0 && n_text == 7);
    CHECK(p.ids[0] == kac_tokenizer_bos(t) && p.ids[7] == kac_tokenizer_eos(t) && p.ids[8] == kac_tokenizer_bos(t));
    CHECK(memcmp(p.ids + 1, long_ids + 1, 6 * sizeof *long_ids) == 0 && p.ids[9] == long_ids[7]);
    CHECK(p.ids[10] == kac_tokenizer_eos(t) && p.ids[11] == kac_tokenizer_pad(t));
    CHECK_OK(kac_prompt_extend(&p, t, 3));
    CHECK(p.n_chunks == 3 && p.ids[16] == kac_tokenizer_bos(t) && p.ids[17] == kac_tokenizer_eos(t));
    kac_prompt_ids_free(&p);

    /* Weights go with their tokens; brackets are no tokens; plain text is the same with and without weighting. */
    const kac_prompt_options weighting = {.weighting = true};
    CHECK_OK(kac_prompt_encode(&p, t, "a (red:1.5) circle", EACH, weighting));
    CHECK_OK(kac_prompt_encode(&q, t, "a red circle", EACH, (kac_prompt_options){0}));
    CHECK(same_ids(&p, &q) && p.weighted && !q.weighted);
    CHECK(p.weight[0] == 1 && p.weight[1] == 1 && p.weight[2] == 1.5f && p.weight[3] == 1 && p.weight[4] == 1);
    kac_prompt_ids_free(&p);
    CHECK_OK(kac_prompt_encode(&p, t, "a red circle", EACH, weighting));
    CHECK(same_ids(&p, &q) && !p.weighted);
    kac_prompt_ids_free(&p), kac_prompt_ids_free(&q);
    CHECK_FAILS(kac_prompt_encode(&p, t, "a", 2, weighting), KAC_E_USAGE, "no room");
    CHECK_FAILS(kac_prompt_encode(&p, t, "(a:1..)", EACH, weighting), KAC_E_USAGE, "1..");
    CHECK(p.ids == NULL);
}

static void test_arithmetic(void) {
    /* mean before 3.5; weighted 1 2 | 6 8 | 5 6: mean 28/6; scale 21/28 = 0.75 */
    float z[6] = {1, 2, 3, 4, 5, 6};
    const float weight[3] = {1, 2, 1}, want[6] = {0.75f, 1.5f, 4.5f, 6, 3.75f, 4.5f};
    kac_prompt_weigh(z, weight, 3, 2);
    CHECK(memcmp(z, want, sizeof z) == 0);
    float flat[2] = {1, -1}, zero[2] = {0, 1};
    kac_prompt_weigh(flat, (float[]){2, 2}, 2, 1);
    CHECK(flat[0] == 2 && flat[1] == -2); /* a mean of 0 cannot be restored */
    kac_prompt_weigh(zero, (float[]){1, 0}, 2, 1);
    CHECK(zero[0] == 0 && zero[1] == 0);
}

int main(void) {
    kac_tokenizer *t;
    if (!CHECK_OK(kac_tokenizer_load(&t, "tests/text/data/shapes"))) return check_done();
    test_grammar();
    test_long_brackets();
    test_ids(t);
    test_arithmetic();
    kac_tokenizer_free(t);
    return check_done();
}
