#include "page_bench.h"

const char kac_bench_style[] =
    "main,header,footer{max-width:1180px}.pairs small{display:block;color:var(--soft);font-size:12px;font-weight:400}\n"
    ".pairs.wide{width:auto;min-width:100%}.pairs.wide td,.pairs.wide th{overflow-wrap:normal;padding-right:14px}"
    ".pairs.wide td.n,.pairs.wide th.n{padding-left:10px;padding-right:4px}.pairs.wide th{width:auto}.pairs "
    ".best{color:var(--accent);font-weight:600}\n";
