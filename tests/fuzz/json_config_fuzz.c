#include "base/json.h"
#include "fuzz/fuzz.h"

enum { MAX_LIST = 8 };

static void read_members(const kac_json *j, const cJSON *object, int depth) {
    const cJSON *item;
    cJSON_ArrayForEach(item, object) {
        int64_t whole, wholes[MAX_LIST];
        double real, reals[MAX_LIST];
        bool flag;
        const char *text, *texts[MAX_LIST];
        int n = 0;
        if (item->string != NULL) {
            (void)kac_json_int(j, object, item->string, &whole);
            (void)kac_json_real(j, object, item->string, &real);
            (void)kac_json_bool(j, object, item->string, &flag);
            (void)kac_json_text(j, object, item->string, &text);
            (void)kac_json_ints(j, object, item->string, wholes, MAX_LIST, &n);
            (void)kac_json_reals(j, object, item->string, reals, MAX_LIST, &n);
            (void)kac_json_texts(j, object, item->string, texts, MAX_LIST, &n);
            if (n < 0 || n > MAX_LIST) abort();
        }
        if (depth < 4) read_members(j, item, depth + 1);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    kac_json j;
    char *exact = malloc(n == 0 ? 1 : n); /* a byte behind the text is not ours */
    for (size_t i = 0; i < n; i++) exact[i] = (char)data[i];
    if (kac_json_parse(&j, exact, n, "fuzz") == KAC_OK) read_members(&j, j.root, 0);
    kac_json_free(&j);
    free(exact);
    if (kac_json_load(&j, fuzz_file(data, n)) == KAC_OK) kac_json_free(&j);
    return 0;
}
