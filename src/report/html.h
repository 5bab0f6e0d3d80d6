/* Text from anywhere into a page. */
#ifndef KAC_REPORT_HTML_H
#define KAC_REPORT_HTML_H

#include "base/base.h"

/* For text and for attribute values in double quotes: & < > " ' escaped, control characters shown as U+FFFD. NULL: nothing. */
void kac_html_escape(kac_text *t, const char *s);
void kac_html_base64(kac_text *t, const void *data, size_t n);
/* "0.3125", "–" for what is not finite. */
void kac_html_number(kac_text *t, double v);
/* A path of a file in the page's folder as an address: what is no letter, digit or one of "-_./" is written as %XX. */
void kac_html_path(kac_text *t, const char *path);
/* "1.5 MiB" */
void kac_html_bytes(kac_text *t, double n);
/* "12,345,678" */
void kac_html_count(kac_text *t, double n);

extern const char kac_html_style[]; /* the pages' style sheet */
/* From the document's start to "<body><header><h1>TITLE</h1>"; `images`: where pictures may come from, "data:"; `style`: more of it, or "".
 * The page may neither fetch anything else nor run scripts. */
void kac_html_open(kac_text *t, const char *title, const char *images, const char *style);

#endif
