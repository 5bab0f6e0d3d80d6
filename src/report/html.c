#include "html.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

void kac_html_escape(kac_text *t, const char *s) {
    if (s == NULL) return;
    while (*s != '\0') {
        size_t n = 0; /* plain bytes */
        while (s[n] != '\0' && (unsigned char)s[n] >= 32 && s[n] != 127 && strchr("&<>\"'", s[n]) == NULL) n++;
        if (n > 0) kac_text_add_bytes(t, s, n);
        s += n;
        if (*s == '\0') break;
        switch (*s) {
        case '&':
            kac_text_add(t, "&amp;");
            break;
        case '<':
            kac_text_add(t, "&lt;");
            break;
        case '>':
            kac_text_add(t, "&gt;");
            break;
        case '"':
            kac_text_add(t, "&quot;");
            break;
        case '\'':
            kac_text_add(t, "&#39;");
            break;
        case '\n':
        case '\t':
            kac_text_add(t, "%c", *s);
            break;
        default:
            kac_text_add(t, "&#xfffd;");
        }
        s++;
    }
}

void kac_html_base64(kac_text *t, const void *data, size_t n) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const uint8_t *p = data;
    char out[4096];
    size_t used = 0;
    for (size_t i = 0; i < n; i += 3) {
        const uint32_t left = (uint32_t)KAC_MIN(n - i, 3);
        const uint32_t v = (uint32_t)p[i] << 16 | (left > 1 ? (uint32_t)p[i + 1] << 8 : 0) | (left > 2 ? p[i + 2] : 0);
        out[used++] = digits[v >> 18];
        out[used++] = digits[v >> 12 & 63];
        out[used++] = left > 1 ? digits[v >> 6 & 63] : '=';
        out[used++] = left > 2 ? digits[v & 63] : '=';
        if (used == sizeof out) {
            kac_text_add_bytes(t, out, used);
            used = 0;
        }
    }
    kac_text_add_bytes(t, out, used);
}

void kac_html_number(kac_text *t, double v) {
    if (!isfinite(v))
        kac_text_add(t, "–");
    else if (v == floor(v) && fabs(v) < 1e7)
        kac_text_add(t, "%.0f", v);
    else
        kac_text_add(t, "%.4g", v);
}

void kac_html_path(kac_text *t, const char *path) {
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./";
    for (; *path != '\0'; path++)
        kac_text_add(t, strchr(plain, *path) != NULL ? "%c" : "%%%02X", (unsigned char)*path);
}

void kac_html_bytes(kac_text *t, double n) {
    const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB"};
    int u = 0;
    if (!isfinite(n)) {
        kac_text_add(t, "–");
        return;
    }
    while (n >= 1024 && u < 4) n /= 1024, u++;
    kac_text_add(t, u == 0 || n >= 100 ? "%.0f %s" : "%.1f %s", n, units[u]);
}

void kac_html_count(kac_text *t, double n) {
    char digits[64];
    if (!isfinite(n) || fabs(n) > 1e18 || n < 0) {
        kac_html_number(t, n);
        return;
    }
    const int len = snprintf(digits, sizeof digits, "%.0f", n);
    for (int i = 0; i < len; i++) kac_text_add(t, i > 0 && (len - i) % 3 == 0 ? "\u202f%c" : "%c", digits[i]);
}

void kac_html_open(kac_text *t, const char *title, const char *images, const char *style) {
    kac_text_add(t,
                 "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n<meta name=\"viewport\" "
                 "content=\"width=device-width,initial-scale=1\">\n<meta http-equiv=\"Content-Security-Policy\" "
                 "content=\"default-src 'none';img-src %s;style-src 'unsafe-inline'\">\n<link rel=\"icon\" "
                 "href=\"data:,\">\n<title>",
                 images);
    kac_html_escape(t, title);
    kac_text_add(t, "</title>\n<style>\n%s%s</style></head>\n<body><header><h1>", kac_html_style, style);
    kac_html_escape(t, title);
    kac_text_add(t, "</h1>\n");
}
