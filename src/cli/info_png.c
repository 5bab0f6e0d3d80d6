#include "info.h"
#include "io/image.h"
#include <string.h>

/* Our own chunk is JSON; what others wrote is text. */
static void add_text(cJSON *d, const kac_png_text *text) {
    cJSON *parsed = strcmp(text->key, "kac") == 0 ? cJSON_Parse(text->value) : NULL;
    cJSON_AddItemToObject(d, text->key, parsed != NULL ? parsed : cJSON_CreateString(text->value));
}

static unsigned be32(const uint8_t *p) {
    return (unsigned)p[0] << 24 | (unsigned)p[1] << 16 | (unsigned)p[2] << 8 | p[3];
}

kac_status kac_info_png(cJSON *d, const char *path) {
    kac_png_texts texts;
    KAC_TRY(kac_png_texts_read(&texts, path));
    kac_map map;
    kac_status s = kac_map_open(&map, path);
    if (s == KAC_OK) {
        cJSON_AddStringToObject(d, "kind", "picture");
        cJSON_AddStringToObject(d, "path", path);
        cJSON_AddNumberToObject(d, "width", map.n < 24 ? 0 : be32(map.data + 16));
        cJSON_AddNumberToObject(d, "height", map.n < 24 ? 0 : be32(map.data + 20));
        cJSON *all = cJSON_AddObjectToObject(d, "text");
        for (int i = 0; i < texts.n; i++) add_text(all, &texts.items[i]);
        kac_map_close(&map);
    }
    kac_png_texts_free(&texts);
    return s;
}
