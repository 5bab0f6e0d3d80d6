#include "io/picture_prompt.h"
#include "base/json.h"
#include "io/image.h"
#include <string.h>

/* ---- ComfyUI ---- */

enum { MAX_HOPS = 16 };

/* The node that an input like ["6", 0] leads to. */
static const cJSON *linked_node(const cJSON *graph, const cJSON *input) {
    const cJSON *first = cJSON_IsArray(input) ? cJSON_GetArrayItem(input, 0) : NULL;
    return cJSON_IsString(first) ? cJSON_GetObjectItemCaseSensitive(graph, first->valuestring) : NULL;
}

/* Follows a conditioning or a text back to where it is written. */
static const char *written_text(const cJSON *graph, const cJSON *node) {
    static const char *const texts[] = {"text", "text_g", "text_l", "value", "string", "positive_prompt"},
                             *const links[] = {"text",     "text_g", "conditioning", "conditioning_1",
                                               "positive", "value",  "string"};
    for (int hop = 0; node != NULL && hop < MAX_HOPS; hop++) {
        const cJSON *inputs = cJSON_GetObjectItemCaseSensitive(node, "inputs");
        for (int i = 0; i < KAC_COUNT_OF(texts); i++) {
            const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(inputs, texts[i]));
            if (text != NULL && text[0] != '\0') return text;
        }
        node = NULL;
        for (int i = 0; i < KAC_COUNT_OF(links) && node == NULL; i++)
            node = linked_node(graph, cJSON_GetObjectItemCaseSensitive(inputs, links[i]));
    }
    return NULL;
}

char *kac_comfy_prompt(const char *json) {
    cJSON *graph = cJSON_Parse(json);
    const cJSON *node;
    const char *found = NULL;
    bool one = true;
    cJSON_ArrayForEach(node, graph) {
        const cJSON *inputs = cJSON_GetObjectItemCaseSensitive(node, "inputs");
        const char *kind = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(node, "class_type"));
        const cJSON *positive = cJSON_GetObjectItemCaseSensitive(inputs, "positive"); /* samplers */
        if (positive == NULL && kind != NULL && strstr(kind, "Guider") != NULL)
            positive = cJSON_GetObjectItemCaseSensitive(inputs, "conditioning");
        const char *text = written_text(graph, linked_node(graph, positive));
        one = one && (text == NULL || found == NULL || strcmp(text, found) == 0);
        if (text != NULL) found = text;
    }
    char *out = found != NULL && one ? kac_strdup(found) : NULL;
    cJSON_Delete(graph);
    return out;
}

/* ---- the others ---- */

/* The first lines of "parameters". */
static char *first_lines(const char *text) {
    const char *negative = strncmp(text, "Negative prompt:", 16) == 0 ? text : strstr(text, "\nNegative prompt:");
    const char *steps = strncmp(text, "Steps:", 6) == 0 ? text : strstr(text, "\nSteps:");
    const char *end = negative != NULL ? negative : steps != NULL ? steps : text + strlen(text);
    return kac_format("%.*s", (int)KAC_MIN(end - text, 1 << 20), text);
}

static char *json_text(const char *json, const char *key) {
    cJSON *object = cJSON_Parse(json);
    const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, key));
    char *out = text == NULL ? NULL : kac_strdup(text);
    cJSON_Delete(object);
    return out;
}

kac_status kac_picture_prompt(char **out, const char *path) {
    static const struct {
        const char *chunk, *key; /* key NULL: no JSON with a prompt in it */
        char *(*read)(const char *text);
    } places[] = {{"kac", "prompt", NULL},
                  {"parameters", NULL, first_lines},
                  {"invokeai_metadata", "positive_prompt", NULL},
                  {"Comment", "prompt", NULL},
                  {"prompt", NULL, kac_comfy_prompt}};
    kac_png_texts texts = {0};
    *out = NULL;
    const kac_status s = kac_png_texts_read(&texts, path);
    if (s != KAC_OK) return s == KAC_E_MEMORY ? s : KAC_OK; /* no PNG, or a broken one */
    for (int i = 0; i < KAC_COUNT_OF(places) && *out == NULL; i++) {
        const char *text = kac_png_texts_get(&texts, places[i].chunk);
        if (text != NULL) *out = places[i].key != NULL ? json_text(text, places[i].key) : places[i].read(text);
        if (*out != NULL && (*out)[strspn(*out, " \t\r\n")] == '\0') kac_free(*out), *out = NULL;
    }
    kac_png_texts_free(&texts);
    return KAC_OK;
}
