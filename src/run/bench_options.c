#include "run/bench.h"
#include <stddef.h>

const kac_option_spec kac_bench_options[] = {
    {"output", 'o', KAC_OPT_TEXT, NULL, .meta = "DIR",
     .help = "folder of the results; the same command again goes on there, several at once share the work"},
    {"plan", 0, KAC_OPT_BOOL, "false", .help = "print what would be run: cells, evaluations, seconds; write nothing"},
    {"only", 0, KAC_OPT_TEXT, NULL, .meta = "LABEL", .repeatable = true, .help = "of the methods only this one"},
    {"budgets", 0, KAC_OPT_TEXT, NULL, .meta = "LIST", .help = "in place of the description's: 25,50,100"},
    {"seeds", 0, KAC_OPT_LIST, NULL, 0, 9007199254740992.0, .meta = "LIST", .help = "in place of the description's"},
    {"limit", 0, KAC_OPT_INT, NULL, 1, 1e9, .meta = "N", .help = "only the first N prompts; categories come in turn"},
    {"batch", 0, KAC_OPT_INT, NULL, 1, 1000, .meta = "N",
     .help = "prompts in one pass; changes no picture (default: the description's, or 8)"},
    {"time-limit", 0, KAC_OPT_REAL, NULL, 0.001, 1e9, .meta = "S",
     .help = "begin no pass that would end later than S seconds from now"},
    {"keep", 0, KAC_OPT_CHOICE, "best", .choices = "best|all|none",
     .help = "pictures: of each cell that of the highest reward, or all"},
    {"trees", 0, KAC_OPT_BOOL, "false", .help = "keep the search trees and family trees of every cell for the page"},
    {"threads", 't', KAC_OPT_INT, "0", 0, 1024, .meta = "N",
     .help = "changes no picture (0: as the description says, or every CPU)"},
    {NULL},
};
