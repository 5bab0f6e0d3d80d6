/* The page of a run folder: what it shows, that it escapes what others wrote, and that a half-written folder still gives one. */
#include "base/base.h"
#include "check.h"
#include "report/report.h"
#include "report/run_data.h"
#include <stdlib.h>
#include <unistd.h>

static int count(const char *text, const char *what) {
    int n = 0;
    for (const char *p = strstr(text, what); p != NULL; p = strstr(p + 1, what)) n++;
    return n;
}

/* Copies one file of the fixture into the folder, at most n bytes of it. */
static void put(const char *folder, const char *name, const char *from, size_t n) {
    char *path = kac_path_join(folder, name), *text;
    size_t n_text;
    CHECK_OK(kac_file_read(&text, &n_text, from, 1 << 24));
    CHECK_OK(kac_file_write(path, text, KAC_MIN(n, n_text)));
    kac_free(text);
    kac_free(path);
}

static void put_text(const char *folder, const char *name, const char *text) {
    char *path = kac_path_join(folder, name);
    CHECK_OK(kac_file_write(path, text, strlen(text)));
    kac_free(path);
}

static void drop(const char *folder, const char *const *names) {
    for (; *names != NULL; names++) {
        char *path = kac_path_join(folder, *names);
        unlink(path);
        kac_free(path);
    }
    rmdir(folder);
}

static void make_folder(char folder[64]) {
    snprintf(folder, 64, "/tmp/kac-report-XXXXXX");
    const char *tmp = getenv("TMPDIR");
    if (tmp != NULL && strlen(tmp) < 40) snprintf(folder, 64, "%s/kac-report-XXXXXX", tmp);
    CHECK(mkdtemp(folder) != NULL);
}

static void whole_run(void) {
    kac_text page;
    kac_report_info info;
    if (!CHECK_OK(kac_report_render(&page, "tests/report/fixture", &info))) return;
    CHECK(info.n_groups == 2 && info.n_images == 8 && info.n_previews == 48 && info.n_steps == 14);
    CHECK(count(page.s, "class=\"card final") == 8);
    CHECK(count(page.s, "<img") == 56 && count(page.s, "src=\"data:image/png;base64,") == 56);
    CHECK(count(page.s, "class=\"tree\"") == 2 && count(page.s, "class=\"chart\"") == 8);
    CHECK(count(page.s, "<section") == count(page.s, "</section>"));
    CHECK(count(page.s, "<svg") == count(page.s, "</svg>"));
    CHECK(count(page.s, "<table") == count(page.s, "</table>"));
    /* hostile prompt: shown, never run; nothing is fetched */
    CHECK(count(page.s, "<script") == 0 && count(page.s, "&lt;script&gt;alert(&#39;x&#39;)") > 0);
    CHECK(count(page.s, "http://") == 0 && count(page.s, "https://") == 0 &&
          count(page.s, "src=\"data:") == count(page.s, "src="));
    CHECK(count(page.s, "default-src 'none'") == 1);
    /* the command line as a shell takes it */
    CHECK(strstr(page.s, "kac generate &#39;a red circle above a blue square&#39; -p") != NULL);
    CHECK(strstr(page.s, "resampled 2 times") != NULL && strstr(page.s, "states denoised") != NULL);
    kac_text_free(&page);
}

static void half_written(void) {
    char folder[64];
    make_folder(folder);
    kac_text page;
    kac_report_info info;
    CHECK_FAILS(kac_report_render(&page, folder, &info), KAC_E_IO, "no run folder");
    kac_text_free(&page);
    put(folder, "events.jsonl", "tests/report/fixture/events.jsonl", 5000); /* ends inside a line */
    CHECK_OK(kac_report_render(&page, folder, &info));
    CHECK(info.n_groups == 2 || info.n_groups == 1);
    CHECK(info.n_steps > 1 && info.n_images == 0);
    CHECK(page.s != NULL && strstr(page.s, "run.json is missing") != NULL &&
          strstr(page.s, "No final pictures yet") != NULL);
    kac_text_free(&page);
    put(folder, "run.json", "tests/report/fixture/run.json", 700); /* cut: counts as missing */
    CHECK_OK(kac_report_render(&page, folder, &info));
    kac_text_free(&page);
    put_text(folder, "run.json", "{\"state\": \"running\", \"groups\": [{\"prompt\": \"a\"}]}");
    CHECK_OK(kac_report_write(folder, &info));
    kac_run_data d;
    CHECK_OK(kac_run_data_load(&d, folder));
    CHECK(d.n_bad_lines == 1);
    kac_run_data_free(&d);
    drop(folder, (const char *const[]){"events.jsonl", "run.json", "index.html", NULL});
}

/* Steps after a restart replace what was written of them before. */
static void resumed(void) {
    char folder[64];
    make_folder(folder);
    put_text(
        folder, "events.jsonl",
        "{\"event\":\"step\",\"i_step\":0,\"log_weights\":[0,0]}\n{\"event\":\"step\",\"i_step\":1,\"log_weights\":[5,"
        "5]}\n"
        "{\"event\":\"preview\",\"i_step\":1,\"particle\":0,\"file\":\"previews/a.png\"}\n"
        "{\"event\":\"start\",\"i_step\":1}\n{\"event\":\"step\",\"i_step\":1,\"log_weights\":[7,7],\"resampled\":true,"
        "\"ancestors\":[1,1]}\n{\"event\":\"step\",\"i_step\":2,\"log_weights\":[null,1]}\n");
    kac_run_data d;
    CHECK_OK(kac_run_data_load(&d, folder));
    CHECK(d.n_step_events == 3 && d.n_previews == 0);
    if (d.n_step_events == 3) {
        CHECK(d.steps[1].log_weights[0] == 7 && d.steps[1].resampled && d.steps[1].ancestors[0] == 1);
        CHECK(isnan(d.steps[2].log_weights[0]));
    }
    kac_run_data_free(&d);
    drop(folder, (const char *const[]){"events.jsonl", NULL});
}

/* Paths that leave the folder, numbers out of range, wrong types: left out, never followed. */
static void hostile(void) {
    char folder[64];
    make_folder(folder);
    put_text(
        folder, "events.jsonl",
        "{\"event\":\"image\",\"particle\":0,\"file\":\"../"
        "secret.png\"}\n{\"event\":\"image\",\"particle\":1,\"file\":\"/etc/hostname\"}\n"
        "{\"event\":\"image\",\"particle\":2,\"file\":\"a/../../"
        "b.png\"}\n{\"event\":\"image\",\"particle\":1e300,\"file\":\"a.png\"}\n"
        "{\"event\":\"step\",\"i_step\":-1,\"log_weights\":[0]}\n{\"event\":\"step\",\"i_step\":1,\"log_weights\":"
        "\"x\"}\n"
        "{\"event\":\"step\",\"i_step\":2,\"log_weights\":[0,0],\"resampled\":true,\"ancestors\":[0,7]}\n"
        "{\"event\":\"step\",\"i_step\":3,\"group\":1e9,\"log_weights\":[0,0]}\n[1]\n\"x\"\nnull\n{\"event\":7}\n");
    put_text(
        folder, "run.json",
        "{\"images\": [{\"file\": \"run.json\", \"particle\": 0}, 7, {\"file\": 7}], \"groups\": 7, \"command\": [1],"
        "\"options\": {\"<b>\": {\"x\": 1}}, \"seconds\": [1], \"counts\": \"x\", \"model\": 3, \"n_steps\": -5}");
    kac_text page;
    kac_report_info info;
    CHECK_OK(kac_report_render(&page, folder, &info));
    CHECK(info.n_images == 0 && count(page.s, "<img") == 0 && count(page.s, "<b>&") == 0);
    kac_run_data d;
    CHECK_OK(kac_run_data_load(&d, folder));
    CHECK(d.n_finals == 1); /* run.json itself: inside, but shown as no picture */
    for (int i = 0; i < d.n_step_events; i++) CHECK(!d.steps[i].resampled);
    kac_run_data_free(&d);
    kac_text_free(&page);
    drop(folder, (const char *const[]){"events.jsonl", "run.json", NULL});
}

int main(void) {
    whole_run();
    half_written();
    resumed();
    hostile();
    return check_done();
}
