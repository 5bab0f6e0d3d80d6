#include "page_bench.h"

const char kac_bench_style[] =
    "main,header,footer{max-width:1180px}.pairs small{display:block;color:var(--soft);font-size:12px;font-weight:400}\n"
    ".pairs .aim{min-width:9em}.pairs.wide{width:auto;min-width:100%}.pairs.wide td,.pairs.wide "
    "th{overflow-wrap:normal;padding-right:14px}"
    ".pairs.wide td.n,.pairs.wide th.n{padding-left:10px;padding-right:4px}.pairs.wide th{width:auto}.pairs "
    ".best{color:var(--accent);font-weight:600}\n"
    ".toggle{position:absolute;opacity:0;pointer-events:none}.legend{display:flex;flex-wrap:wrap;gap:6px "
    "16px;margin:18px 0 "
    "0;position:sticky;top:0;background:var(--bg);padding:6px 0;z-index:1}.legend "
    "label{cursor:pointer;font-size:14px;user-select:none}\n"
    ".wall{border-collapse:separate;border-spacing:6px;font-size:12px;color:var(--soft);font-variant-numeric:tabular-"
    "nums}"
    ".wall th{font-weight:400;text-align:left;white-space:nowrap}.wall td{vertical-align:top;text-align:center}.wall "
    "img{display:block;width:112px;height:auto;min-height:24px;background:var(--rule);border-radius:4px}.wall "
    "td{max-width:112px}.wall td>span{display:block}.wall .chip{margin:0 5px 0 0}\n"
    "details{margin:6px 0}details h3{margin:4px 0}summary{margin-bottom:4px}details details{margin-left:14px}summary "
    ".note{margin-left:8px}\n";
