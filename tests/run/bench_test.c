/* Descriptions of a bench: what is read from them, in which order prompts come, and what is refused with which words. And its folder: what
 * counts as finished, what may grow, what may not differ. */
#include "check.h"
#include "run/bench.h"
#include "run/bench_store.h"
#include "util/temp.h"
#include <stdlib.h>
#include <unistd.h>

static kac_options *options;

static kac_status read_plan(kac_bench_plan *p, const char *text) {
    return kac_bench_plan_read(p, temp_write("d.json", text, strlen(text)), options, "weights");
}

static void refuses(const char *text, kac_status status, const char *said) {
    kac_bench_plan p;
    CHECK_FAILS(read_plan(&p, text), status, said);
    CHECK(strstr(kac_error(), "d.json") != NULL || strstr(kac_error(), ".tsv") != NULL);
    kac_bench_plan_free(&p);
}

#define DESCRIPTION(more) "{\"prompts\": [\"a cat\"], \"budgets\": [4], \"methods\": [{\"method\": \"fk\"}]" more "}"

static void refusals(void) {
    refuses("[]", KAC_E_FORMAT, NULL);
    refuses(DESCRIPTION(", \"budget\": [4]"), KAC_E_USAGE, "unknown key \"budget\"; did you mean \"budgets\"?");
    refuses("{\"prompts\": [\"a\"], \"methods\": [{\"method\": \"fk\"}]}", KAC_E_USAGE, "\"budgets\" is missing");
    refuses("{\"prompts\": [\"a\"], \"budgets\": [4]}", KAC_E_FORMAT, "\"methods\" must be a list");
    refuses("{\"prompts\": [\"a\"], \"budgets\": [0], \"methods\": [{\"method\": \"fk\"}]}", KAC_E_USAGE,
            "budget of 0");
    refuses("{\"prompts\": [\"a\"], \"budgets\": [2.5], \"methods\": [{\"method\": \"fk\"}]}", KAC_E_USAGE, "2.5 nfe");
    refuses("{\"prompts\": [\"a\"], \"budgets\": [4], \"methods\": [{\"method\": \"fj\"}]}", KAC_E_USAGE,
            "there is no method \"fj\"; did you mean \"fk\"?");
    refuses("{\"prompts\": [\"a\"], \"budgets\": [4], \"methods\": [{\"method\": \"fk\"}, {\"method\": \"fk\"}]}",
            KAC_E_USAGE, "two have the label \"fk\"");
    refuses("{\"prompts\": [\"a\"], \"budgets\": [4], \"methods\": [{\"method\": \"fk\", \"label\": \"a/b\"}]}",
            KAC_E_USAGE, "label \"a/b\"");
    refuses("{\"prompts\": [\"a\"], \"budgets\": [4], \"methods\": [{\"method\": \"fk\", \"lamda\": 3}]}", KAC_E_USAGE,
            "unknown key \"lamda\"");
    refuses(
        "{\"prompts\": [\"a\"], \"budgets\": [4], \"methods\": [{\"method\": \"fk\", \"options\": {\"lamda\": 3}}]}",
        KAC_E_USAGE, "lambda");
    refuses("{\"prompts\": [\"a\"], \"budgets\": [4], \"methods\": [{\"method\": \"fk\", \"options\": "
            "{\"ess-threshold\": 7}}]}",
            KAC_E_USAGE, "ess-threshold");
    refuses(DESCRIPTION(", \"options\": {\"step\": 7}"), KAC_E_USAGE, "did you mean --steps?");
    refuses(DESCRIPTION(", \"options\": {\"seed\": 7}"), KAC_E_USAGE, "\"seed\" is no option of a bench");
    refuses(DESCRIPTION(", \"options\": {\"steps\": 0}"), KAC_E_USAGE, "steps");
    refuses(DESCRIPTION(", \"unit\": \"hours\""), KAC_E_USAGE, "\"unit\" must be");
    refuses(DESCRIPTION(", \"unit\": \"seconds\""), KAC_E_USAGE, "fk (fk) cannot be stopped by time");
    refuses(DESCRIPTION(", \"seeds\": [1, 1]"), KAC_E_USAGE, "seed 1 stands twice");
    refuses(DESCRIPTION(", \"seeds\": [-1]"), KAC_E_USAGE, "seed -1");
    refuses(DESCRIPTION(", \"categories\": [\"x\"]"), KAC_E_USAGE, "no prompt is of \"x\"");
    refuses(DESCRIPTION(", \"model\": \"m.json\", \"rewards\": [\"clip\"]"), KAC_E_UNSUPPORTED, "mixture");
    refuses(DESCRIPTION(", \"model\": \"m\""), KAC_E_USAGE, "\"rewards\" is missing");
    refuses(DESCRIPTION(", \"rewards\": [\"clip,z\"]"), KAC_E_USAGE, ",z=MEAN/STD");
    refuses(DESCRIPTION(", \"batch\": 0"), KAC_E_USAGE, "batch");
    refuses("{\"prompts\": \"none.tsv\", \"budgets\": [4], \"methods\": [{\"method\": \"fk\"}]}", KAC_E_IO, "none.tsv");
    refuses("{\"prompts\": [1], \"budgets\": [4], \"methods\": [{\"method\": \"fk\"}]}", KAC_E_FORMAT, "entry 1");
}

static void reads(void) {
    static const char table[] = "Prompt\tCategory\tNote\na\tone\t\nb\tone\t\nc\ttwo\t\nd\tone\t\ne\ttwo\t\n";
    temp_write("p.tsv", table, sizeof table - 1);
    kac_bench_plan p;
    CHECK_OK(read_plan(&p, "{\"prompts\": \"p.tsv\", \"budgets\": [16, 4, 16], \"seeds\": [3, 1], \"judges\": [],"
                           " \"options\": {\"lambda\": 4, \"steps\": 6, \"lora\": \"l.safetensors:2\"}, \"limit\": 4,"
                           " \"methods\": [{\"method\": \"none\"}, {\"label\": \"fk-2\", \"method\": \"fk\","
                           " \"options\": {\"lambda\": 2}, \"model\": \"other\"}]}"));
    CHECK(p.n_budgets == 2);
    CHECK(p.budgets[0] == 4 && p.budgets[1] == 16);
    CHECK(p.n_seeds == 2 && p.seeds[0] == 3);
    CHECK(p.prompts.n == 5);
    CHECK(p.n_prompts == 4);
    static const char *const order[] = {"a", "c", "b", "e", "d"}, *const ids[] = {"1", "3", "2", "5", "4"};
    for (int i = 0; i < p.prompts.n; i++) {
        CHECK_TEXT(p.prompts.items[i], order[i]);
        CHECK_TEXT(p.prompts.ids[i], ids[i]);
    }
    CHECK(p.n_ways == 2);
    CHECK(kac_options_real(p.ways[1].options, "lambda") == 2);
    CHECK(kac_options_int(p.ways[0].options, "steps") == 6);
    CHECK(strncmp(kac_options_text_at(p.ways[0].options, "lora", 0), temp_dir(), strlen(temp_dir())) == 0);
    CHECK(strstr(p.ways[1].model, "/other") != NULL && strstr(p.ways[0].model, "shapes-64") != NULL);
    CHECK(p.n_rewards == 1);
    kac_bench_plan_free(&p);
    CHECK_OK(read_plan(&p,
                       "{\"prompts\": [{\"file\": \"p.tsv\"}, {\"prompt\": \"x\", \"tag\": \"t\", \"id\": 9}, \"y\"],"
                       " \"categories\": [\"t\", \"\"], \"budgets\": [4], \"methods\": [{\"method\": \"none\"}]}"));
    CHECK(p.prompts.n == 2);
    if (p.prompts.n == 2) CHECK_TEXT(p.prompts.ids[0], "9");
    CHECK_TEXT(p.prompts.items[1], "y");
    kac_bench_plan_free(&p);
    CHECK_OK(read_plan(&p, "{\"budgets\": [4], \"methods\": [{\"method\": \"none\"}]}"));
    CHECK(p.unconditional && p.n_prompts == 1);
    kac_bench_plan_free(&p);
}

/* ---- the folder ---- */

static const char *const first =
    "{\"prompts\": [\"a\", \"b\"], \"budgets\": [4], \"methods\": [{\"method\": \"none\"}]}";

static void joins(const char *text, const char *said) {
    kac_bench_plan p;
    kac_bench_store s;
    CHECK_OK(read_plan(&p, text));
    const kac_status status = kac_bench_store_open(&s, temp_path("folder"), &p, cJSON_CreateObject());
    CHECK(status == (said == NULL ? KAC_OK : KAC_E_USAGE));
    if (said != NULL) CHECK(strstr(kac_error(), said) != NULL);
    if (status == KAC_OK) kac_bench_store_close(&s);
    kac_bench_plan_free(&p);
}

static void stores(void) {
    kac_bench_plan p;
    kac_bench_store s;
    CHECK_OK(read_plan(&p, first));
    CHECK_OK(kac_bench_store_open(&s, temp_path("folder"), &p, cJSON_CreateObject()));
    kac_bench_place places[] = {{0, 0, 0, 0}, {0, 0, 0, 1}};
    int n = 2;
    CHECK_OK(kac_bench_store_claim(&s, places, &n));
    CHECK(n == 2);
    CHECK_OK(
        kac_bench_store_add(&s, "{\"method\":\"none\",\"budget\":4,\"prompt\":1,\"seed\":0,\"error\":\"no\"}\n"
                                "{\"method\":\"other\",\"budget\":4,\"prompt\":1,\"seed\":0,\"reward\":1}\n"
                                "{\"method\":\"none\",\"budget\":4,\"prompt\":2,\"seed\":0,\"reward\":1}\n"
                                "nonsense\n{\"method\":\"none\",\"budget\":4,\"prompt\":0,\"seed\":0,\"reward\":1}\n"));
    CHECK(s.n_done == 1);
    CHECK(kac_bench_store_is_done(&s, places[0]) && !kac_bench_store_is_done(&s, places[1]));
    static const char cut[] = "{\"method\":\"none\",\"budget\":4,\"prompt\":1,\"seed\":0,\"rew";
    CHECK(write(s.results_fd, cut, sizeof cut - 1) == (ssize_t)sizeof cut - 1); /* what a kill leaves */
    kac_bench_store_close(&s);
    CHECK_OK(kac_bench_store_open(&s, temp_path("folder"), &p, cJSON_CreateObject()));
    CHECK(s.n_done == 1);
    CHECK_OK(kac_bench_store_add(&s, "{\"method\":\"none\",\"budget\":4,\"prompt\":1,\"seed\":0,\"reward\":2}\n"));
    CHECK(s.n_done == 2);
    kac_bench_store_close(&s);
    kac_bench_plan_free(&p);
    joins("{\"prompts\": [\"a\", \"b\", \"c\"], \"budgets\": [4, 8], \"seeds\": [0, 1],"
          " \"methods\": [{\"method\": \"none\"}, {\"method\": \"fk\"}]}",
          NULL);
    joins(first, NULL);
    joins("{\"prompts\": [\"a\", \"x\"], \"budgets\": [4], \"methods\": [{\"method\": \"none\"}]}",
          "other prompts (prompt 2)");
    joins(
        "{\"prompts\": [\"a\"], \"budgets\": [4], \"methods\": [{\"method\": \"none\", \"options\": {\"steps\": 7}}]}",
        "other options labelled \"none\"");
    joins("{\"prompts\": [\"a\"], \"budgets\": [4], \"judges\": [\"jpeg\"], \"methods\": [{\"method\": \"none\"}]}",
          "other \"judges\"");
    joins("{\"prompts\": [\"a\"], \"budgets\": [4], \"rewards\": [\"jpeg\"], \"methods\": [{\"method\": \"none\"}]}",
          "other \"rewards\"");
    joins("{\"prompts\": [\"a\"], \"budgets\": [4], \"unit\": \"particles\", \"methods\": [{\"method\": \"none\"}]}",
          "another \"unit\"");
    kac_json j;
    CHECK_OK(kac_json_load(&j, temp_path("folder/bench.json")));
    CHECK(cJSON_GetArraySize(cJSON_GetObjectItem(j.root, "budgets")) == 2);
    CHECK(cJSON_GetArraySize(cJSON_GetObjectItem(j.root, "seeds")) == 2);
    CHECK(cJSON_GetArraySize(cJSON_GetObjectItem(j.root, "prompts")) == 3);
    CHECK(cJSON_GetArraySize(cJSON_GetObjectItem(j.root, "methods")) == 2);
    kac_json_free(&j);
}

int main(void) {
    options = kac_options_create(kac_bench_options);
    refusals();
    reads();
    stores();
    kac_options_destroy(options);
    return check_done();
}
