#include "bench_report.h"
#include "bench_files.h"
#include "html.h"
#include "page_bench.h"

static kac_status add_page(kac_bench_page *p) {
    kac_page_bench_head(p);
    KAC_TRY(kac_page_bench_headline(p));
    KAC_TRY(kac_page_bench_curves(p));
    KAC_TRY(kac_page_bench_speed(p));
    KAC_TRY(kac_page_bench_overdone(p));
    KAC_TRY(kac_page_bench_wins(p));
    KAC_TRY(kac_page_bench_categories(p));
    KAC_TRY(kac_page_bench_costs(p));
    KAC_TRY(kac_page_bench_trees(p));
    kac_page_bench_facts(p);
    KAC_TRY(kac_page_bench_walls(p));
    kac_text_add(p->t, "</main>\n</body></html>\n");
    p->info->n_bytes = p->t->n;
    return p->t->failed ? KAC_FAIL(KAC_E_MEMORY, "not enough memory for the page of %s", p->d->folder) : KAC_OK;
}

static void fill_info(kac_bench_report_info *info, const kac_bench_data *d) {
    *info = (kac_bench_report_info){
        .n_cells = KAC_MAX(d->n_possible, d->n_done), .n_done = d->n_done, .n_failed = d->n_failed};
}

static kac_status write_file(const char *folder, const char *name, const kac_text *text) {
    char *path = kac_path_join(folder, name);
    kac_status s = path == NULL ? KAC_E_MEMORY : kac_file_write(path, text->s, text->n);
    kac_free(path);
    return s;
}

/* The page, and with `write` everything beside it. */
static kac_status make(kac_text *text, const char *folder, kac_bench_report_info *info, bool write) {
    kac_bench_report_info own;
    kac_bench_data d;
    kac_bench_page p = {0};
    if (info == NULL) info = &own;
    *text = (kac_text){0};
    kac_status s = kac_bench_data_load(&d, folder);
    if (s == KAC_OK) {
        fill_info(info, &d);
        s = kac_bench_page_open(&p, text, &d, info);
        p.write = write;
        if (s == KAC_OK) s = add_page(&p);
        if (s == KAC_OK && write) s = kac_bench_files_write(&p);
        if (s == KAC_OK && write) s = write_file(folder, "index.html", text);
        kac_bench_page_close(&p);
    }
    kac_bench_data_free(&d);
    return s;
}

kac_status kac_bench_report_render(kac_text *page, const char *folder, kac_bench_report_info *info) {
    return make(page, folder, info, false);
}

kac_status kac_bench_report_write(const char *folder, kac_bench_report_info *info) {
    kac_text text;
    const kac_status s = make(&text, folder, info, true);
    kac_text_free(&text);
    return s;
}
