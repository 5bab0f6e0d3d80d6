/* Captions of coloured shapes, and whether a scene is what a caption says. */
#include "reward/judge.h"
#include <ctype.h>
#include <math.h>
#include <string.h>

const char *const kac_shape_names[KAC_N_SHAPES] = {"circle", "square", "triangle", "star",
                                                   "heart",  "cross",  "diamond",  "ring"};
const char *const kac_color_names[KAC_N_COLORS] = {"red",    "green",  "blue", "yellow",
                                                   "purple", "orange", "cyan", "pink"};
const uint8_t kac_color_rgb[KAC_N_COLORS][3] = {{220, 35, 40},  {35, 165, 60},  {35, 75, 225},  {250, 220, 35},
                                                {135, 45, 175}, {250, 135, 25}, {35, 205, 220}, {250, 125, 190}};

/* Objects of a larger radius in pixels are large. */
static const float large_radius = 13.8f;
static const float max_template_error = 0.20f;

typedef struct word_value {
    const char *word;
    int value;
} word_value;

static const word_value sizes[] = {{"small", KAC_SIZE_SMALL}, {"tiny", KAC_SIZE_SMALL}, {"little", KAC_SIZE_SMALL},
                                   {"large", KAC_SIZE_LARGE}, {"big", KAC_SIZE_LARGE},  {"huge", KAC_SIZE_LARGE}};
static const word_value numbers[] = {{"two", 2}, {"2", 2}, {"three", 3}, {"3", 3}, {"four", 4}, {"4", 4}};
static const word_value relations[] = {{"above", KAC_REL_ABOVE}, {"over", KAC_REL_ABOVE},  {"top", KAC_REL_ABOVE},
                                       {"below", KAC_REL_BELOW}, {"under", KAC_REL_BELOW}, {"beneath", KAC_REL_BELOW},
                                       {"left", KAC_REL_LEFT},   {"right", KAC_REL_RIGHT}};
static const word_value backgrounds[] = {{"white", KAC_BG_WHITE},
                                         {"black", KAC_BG_BLACK},
                                         {"gray", KAC_BG_GRAY},
                                         {"grey", KAC_BG_GRAY},
                                         {"gradient", KAC_BG_GRADIENT}};

/* −1 when the word is not in the table. */
static int value_of(const char *word, size_t n, const word_value *table, int n_table) {
    for (int i = 0; i < n_table; i++)
        if (strlen(table[i].word) == n && memcmp(table[i].word, word, n) == 0) return table[i].value;
    return -1;
}

static int color_of(const char *word, size_t n) {
    for (int i = 0; i < KAC_N_COLORS; i++)
        if (strlen(kac_color_names[i]) == n && memcmp(kac_color_names[i], word, n) == 0) return i;
    return -1;
}

/* Singular or plural. */
static int shape_of(const char *word, size_t n) {
    for (int i = 0; i < KAC_N_SHAPES; i++) {
        const size_t m = strlen(kac_shape_names[i]);
        if (n < m || memcmp(kac_shape_names[i], word, m) != 0) continue;
        const bool es = kac_shape_names[i][m - 1] == 's';
        if (n == m || (es ? n == m + 2 && memcmp(word + m, "es", 2) == 0 : n == m + 1 && word[m] == 's')) return i;
    }
    return -1;
}

static size_t word_length(const char *p) {
    size_t n = 0;
    while (isalnum((unsigned char)p[n])) n++;
    return n;
}

static const char *skip_gap(const char *p) {
    while (*p != '\0' && !isalnum((unsigned char)*p)) p++;
    return p;
}

/* Finds "white background" and cuts the text before it. */
static kac_background cut_background(char *text) {
    for (char *p = (char *)skip_gap(text); *p != '\0';) {
        const size_t n = word_length(p);
        const int b = value_of(p, n, backgrounds, KAC_COUNT_OF(backgrounds));
        char *next = (char *)skip_gap(p + n);
        if (b >= 0 && strncmp(next, "background", 10) == 0) {
            *p = '\0';
            return (kac_background)b;
        }
        p = next;
    }
    return KAC_BG_NONE;
}

bool kac_scene_parse(kac_scene_spec *out, const char *caption) {
    char text[1024];
    size_t n_text = 0;
    for (; caption[n_text] != '\0' && n_text < sizeof text - 1; n_text++) {
        const unsigned char ch = (unsigned char)caption[n_text];
        text[n_text] = (char)(ch < 0x80 && isalnum(ch) ? tolower(ch) : ' ');
    }
    text[n_text] = '\0';
    *out = (kac_scene_spec){.count = 1, .background = cut_background(text)};
    int color = -1, size = KAC_SIZE_ANY, number = 1;
    for (const char *p = skip_gap(text); *p != '\0'; p = skip_gap(p + word_length(p))) {
        const size_t n = word_length(p);
        int v;
        if ((v = color_of(p, n)) >= 0) {
            color = v;
        } else if ((v = value_of(p, n, sizes, KAC_COUNT_OF(sizes))) >= 0) {
            size = v;
        } else if ((v = value_of(p, n, numbers, KAC_COUNT_OF(numbers))) >= 0) {
            number = v;
        } else if ((v = shape_of(p, n)) >= 0) {
            if (out->n_objects == KAC_SCENE_MAX) return false;
            out->objects[out->n_objects].shape = (kac_shape)v;
            out->objects[out->n_objects].color = color;
            out->objects[out->n_objects++].size = (kac_object_size)size;
            out->count = KAC_MAX(out->count, number);
            color = -1, size = KAC_SIZE_ANY, number = 1;
        } else if (out->n_objects == 1 && (v = value_of(p, n, relations, KAC_COUNT_OF(relations))) >= 0) {
            out->relation = (kac_relation)v;
        }
    }
    return out->n_objects > 0;
}

kac_relation kac_object_relation(const kac_scene_object *a, const kac_scene_object *b) {
    const float dx = a->x - b->x, dy = a->y - b->y;
    if (fabsf(dx) > fabsf(dy)) return dx < 0 ? KAC_REL_LEFT : KAC_REL_RIGHT;
    return dy < 0 ? KAC_REL_ABOVE : KAC_REL_BELOW;
}

int kac_object_facts(const kac_scene_object *o, const kac_scene_spec *want, int i, int *n_stated) {
    const kac_object_size size = o != NULL && o->r > large_radius ? KAC_SIZE_LARGE : KAC_SIZE_SMALL;
    const bool color = want->objects[i].color >= 0, sized = want->objects[i].size != KAC_SIZE_ANY;
    *n_stated = 1 + color + sized;
    if (o == NULL) return 0;
    return (o->shape == want->objects[i].shape) + (color && o->color == want->objects[i].color) +
           (sized && want->objects[i].size == size);
}

static bool matches(const kac_scene_object *o, const kac_scene_spec *want, int i) {
    int n_stated;
    const int n_held = kac_object_facts(o, want, i, &n_stated);
    return n_held == n_stated;
}

/* One kind of object: the right number, all of one colour. */
static bool satisfies_count(const kac_scene *scene, const kac_scene_spec *want) {
    if (scene->n != want->count) return false;
    for (int i = 0; i < scene->n; i++)
        if (!matches(&scene->objects[i], want, 0) || scene->objects[i].color != scene->objects[0].color) return false;
    return true;
}

/* Three or more kinds: each wanted object takes the first free one that fits. */
static bool satisfies_list(const kac_scene *scene, const kac_scene_spec *want) {
    bool taken[KAC_SCENE_MAX] = {false};
    for (int w = 0; w < want->n_objects; w++) {
        int found = -1;
        for (int i = 0; i < scene->n && found < 0; i++)
            if (!taken[i] && matches(&scene->objects[i], want, w)) found = i;
        if (found < 0) return false;
        taken[found] = true;
    }
    return true;
}

bool kac_scene_satisfies(const kac_scene *scene, const kac_scene_spec *want) {
    if (want->background != KAC_BG_NONE && scene->background != want->background) return false;
    if (want->n_objects == 1) return satisfies_count(scene, want);
    if (scene->n != want->n_objects) return false;
    if (want->n_objects > 2) return satisfies_list(scene, want);
    for (int first = 0; first < 2; first++) {
        const kac_scene_object *a = &scene->objects[first], *b = &scene->objects[1 - first];
        if (matches(a, want, 0) && matches(b, want, 1) &&
            (want->relation == KAC_REL_NONE || kac_object_relation(a, b) == want->relation))
            return true;
    }
    return false;
}

bool kac_scene_clean(const kac_scene *scene) {
    for (int i = 0; i < scene->n; i++)
        if (!(scene->objects[i].error < max_template_error)) return false;
    return true;
}
