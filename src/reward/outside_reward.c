#include "reward/outside_reward.h"
#include "base/child.h"
#include "base/json.h"
#include "io/png.h"
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PROTOCOL = 1, MAX_BATCH = 16, IMAGES_PATH = 0, IMAGES_PNG, IMAGES_RGB, N_IMAGES };

static const char *const image_names[] = {"path", "png_base64", "rgb_base64"};

typedef struct outside_reward {
    kac_child child;
    bool ready;
    int images; /* IMAGES_… */
    int batch;
    int64_t id;    /* of the last request */
    char *dir;     /* for pictures; NULL: none made yet */
    char *command; /* for messages */
} outside_reward;

static void outside_close(kac_image_reward *r) {
    outside_reward *self = r->self;
    kac_child_stop(&self->child);
    if (self->dir != NULL) rmdir(self->dir);
    kac_free(self->dir), kac_free(self->command);
    kac_free(self);
}

/* The program cannot be talked to any more. */
static kac_status lose(kac_image_reward *r, kac_status s) {
    outside_reward *self = r->self;
    r->lost = true;
    kac_child_stop(&self->child);
    return s;
}

/* ---- what it says ---- */

static kac_status ask(kac_image_reward *r, kac_json *answer, const char *line, size_t n) {
    outside_reward *self = r->self;
    char *text;
    const kac_status s = kac_child_ask(&self->child, line, n, &text, r->timeout_ms > 0 ? r->timeout_ms : 300000);
    if (s != KAC_OK) return lose(r, s);
    if (kac_json_parse(answer, text, strlen(text), "what it said") == KAC_OK) return KAC_OK;
    return lose(r, KAC_FAIL(KAC_E_FORMAT, "the command %.120s said \"%.120s%s\" where one line of JSON belongs",
                            self->command, text, strlen(text) > 120 ? "…" : ""));
}

static kac_status read_hello(outside_reward *self, const kac_json *hello) {
    int64_t protocol = 0, batch = MAX_BATCH;
    const char *images = "path";
    if (kac_json_int(hello, hello->root, "protocol", &protocol) != KAC_OK || protocol != PROTOCOL)
        return KAC_FAIL(KAC_E_FORMAT, "the command %.120s must begin with {\"protocol\": %d}", self->command,
                        (int)PROTOCOL);
    if (kac_json_text(hello, hello->root, "images", &images) != KAC_OK) images = "";
    for (self->images = 0; self->images < N_IMAGES; self->images++)
        if (strcmp(images, image_names[self->images]) == 0) break;
    if (self->images == N_IMAGES)
        return KAC_FAIL(KAC_E_FORMAT,
                        "the command %.120s wants \"images\" that are none of path, png_base64, rgb_base64",
                        self->command);
    if (kac_json_int(hello, hello->root, "batch", &batch) != KAC_OK || batch < 1)
        return KAC_FAIL(KAC_E_FORMAT, "the command %.120s wants a batch that is no number from 1", self->command);
    self->batch = (int)KAC_MIN(batch, MAX_BATCH);
    return KAC_OK;
}

static kac_status outside_prepare(kac_image_reward *r) {
    outside_reward *self = r->self;
    if (self->ready || r->c->model.counting) return KAC_OK;
    kac_json hello = {0};
    KAC_TRY(ask(r, &hello, NULL, 0));
    const kac_status s = read_hello(self, &hello);
    kac_json_free(&hello);
    self->ready = s == KAC_OK;
    return s == KAC_OK ? s : lose(r, s);
}

static kac_status lied(const outside_reward *self, const char *what, const kac_json *answer) {
    char *text = cJSON_PrintUnformatted(answer->root);
    const kac_status s =
        KAC_FAIL(KAC_E_FORMAT, "the command %.120s answered %s: %.120s", self->command, what, text == NULL ? "" : text);
    cJSON_free(text);
    return s;
}

static kac_status read_rewards(kac_image_reward *r, const kac_json *answer, int n, double *out) {
    outside_reward *self = r->self;
    int64_t id = -1;
    const char *error = NULL;
    if (kac_json_int(answer, answer->root, "id", &id) != KAC_OK || id != self->id)
        return lose(r, lied(self, "with another id than it was asked with", answer));
    if (kac_json_text(answer, answer->root, "error", &error) == KAC_OK && error != NULL)
        return KAC_FAIL(KAC_E_DEVICE, "the command %.120s says: %.300s", self->command, error);
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(answer->root, "rewards"), *item;
    if (!cJSON_IsArray(list)) return lose(r, lied(self, "without a list \"rewards\"", answer));
    if (cJSON_GetArraySize(list) != n) {
        char *what = kac_format("with %d rewards for %d pictures", cJSON_GetArraySize(list), n);
        const kac_status s = lied(self, what == NULL ? "" : what, answer);
        kac_free(what);
        return lose(r, s);
    }
    int i = 0;
    cJSON_ArrayForEach(item, list) {
        if (!cJSON_IsNumber(item) || !isfinite(item->valuedouble))
            return lose(r, lied(self, "with a reward that is no finite number", answer));
        out[i++] = item->valuedouble;
    }
    return KAC_OK;
}

/* ---- what it is asked ---- */

static char *base64_of(const uint8_t *data, size_t n) {
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    char *out = kac_alloc((n + 2) / 3 * 4 + 1), *to = out;
    for (size_t i = 0; i < n && out != NULL; i += 3) {
        const uint32_t v = (uint32_t)data[i] << 16 | (i + 1 < n ? (uint32_t)data[i + 1] << 8 : 0) |
                           (i + 2 < n ? (uint32_t)data[i + 2] : 0);
        *to++ = letters[v >> 18], *to++ = letters[v >> 12 & 63];
        *to++ = i + 1 < n ? letters[v >> 6 & 63] : '=', *to++ = i + 2 < n ? letters[v & 63] : '=';
    }
    return out;
}

static kac_status make_dir(outside_reward *self) {
    if (self->dir != NULL) return KAC_OK;
    const char *base = getenv("TMPDIR");
    self->dir = kac_format("%s/kac-reward-XXXXXX", base != NULL && base[0] == '/' ? base : "/tmp");
    if (self->dir == NULL) return KAC_E_MEMORY;
    if (mkdtemp(self->dir) != NULL) return KAC_OK;
    const kac_status s = KAC_FAIL(KAC_E_IO, "cannot make the folder %s for pictures", self->dir);
    kac_free(self->dir);
    self->dir = NULL;
    return s;
}

static char *picture_path(const outside_reward *self, int i) {
    return kac_format("%s/%lld-%d.png", self->dir, (long long)self->id, i);
}

static kac_status add_base64(cJSON *entry, const char *key, const uint8_t *data, size_t n) {
    char *text = base64_of(data, n);
    if (text == NULL) return KAC_E_MEMORY;
    cJSON_AddStringToObject(entry, key, text);
    kac_free(text);
    return KAC_OK;
}

/* Not synced: the file lives until the answer. */
static kac_status write_png(const char *path, const uint8_t *png, size_t n) {
    const int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    size_t n_put = 0;
    while (fd >= 0 && n_put < n) {
        const ssize_t put = write(fd, png + n_put, n - n_put);
        if (put < 0 && errno != EINTR) break;
        n_put += put > 0 ? (size_t)put : 0;
    }
    const kac_status s =
        fd >= 0 && n_put == n ? KAC_OK : KAC_FAIL(KAC_E_IO, "cannot write %s: %s", path, strerror(errno));
    if (fd >= 0) close(fd);
    return s;
}

static kac_status add_path(outside_reward *self, cJSON *entry, const uint8_t *png, size_t n, int i) {
    KAC_TRY(make_dir(self));
    char *path = picture_path(self, i);
    if (path == NULL) return KAC_E_MEMORY;
    const kac_status s = write_png(path, png, n);
    cJSON_AddStringToObject(entry, "path", path);
    kac_free(path);
    return s;
}

static kac_status add_picture(outside_reward *self, cJSON *entry, const kac_picture *p, int i) {
    cJSON_AddNumberToObject(entry, "width", p->width);
    cJSON_AddNumberToObject(entry, "height", p->height);
    if (self->images == IMAGES_RGB)
        return add_base64(entry, "rgb_base64", p->rgb, (size_t)p->width * (size_t)p->height * 3);
    uint8_t *png;
    size_t n;
    KAC_TRY(kac_png_encode(&png, &n, p->rgb, p->width, p->height, "a picture"));
    const kac_status s =
        self->images == IMAGES_PATH ? add_path(self, entry, png, n, i) : add_base64(entry, "png_base64", png, n);
    kac_free(png);
    return s;
}

static kac_status request_of(kac_image_reward *r, char **out, const kac_picture *pictures, int n) {
    outside_reward *self = r->self;
    cJSON *request = cJSON_CreateObject();
    cJSON_AddNumberToObject(request, "id", (double)++self->id);
    cJSON *images = cJSON_AddArrayToObject(request, "images");
    kac_status s = KAC_OK;
    for (int i = 0; i < n && s == KAC_OK; i++) {
        cJSON *entry = cJSON_CreateObject();
        cJSON_AddItemToArray(images, entry);
        s = add_picture(self, entry, &pictures[i], i);
        cJSON_AddStringToObject(entry, "prompt", r->n_prompts > 0 ? r->prompts[pictures[i].prompt] : "");
    }
    *out = s == KAC_OK ? cJSON_PrintUnformatted(request) : NULL;
    cJSON_Delete(request);
    return s != KAC_OK || *out != NULL ? s
                                       : KAC_FAIL(KAC_E_MEMORY, "out of memory for pictures to %.60s", self->command);
}

static void remove_pictures(const outside_reward *self, int n) {
    for (int i = 0; i < n && self->dir != NULL; i++) {
        char *path = picture_path(self, i);
        if (path != NULL) unlink(path);
        kac_free(path);
    }
}

static kac_status score_batch(kac_image_reward *r, const kac_picture *pictures, int n, double *out) {
    outside_reward *self = r->self;
    char *request = NULL;
    kac_json answer = {0};
    kac_status s = request_of(r, &request, pictures, n);
    if (s == KAC_OK) s = ask(r, &answer, request, strlen(request));
    if (s == KAC_OK) s = read_rewards(r, &answer, n, out);
    kac_json_free(&answer);
    cJSON_free(request);
    remove_pictures(self, n);
    return s;
}

static kac_status outside_score(kac_image_reward *r, const kac_picture *pictures, int n, double *out) {
    outside_reward *self = r->self;
    for (int i = 0; i < n; i++) out[i] = 0;
    if (r->c->model.counting) return KAC_OK;
    KAC_TRY(outside_prepare(r));
    for (int i = 0; i < n; i += self->batch)
        KAC_TRY(score_batch(r, pictures + i, KAC_MIN(self->batch, n - i), out + i));
    return KAC_OK;
}

kac_status kac_outside_reward_open(kac_image_reward *r, const char *command) {
    outside_reward *self = kac_alloc(sizeof *self);
    if (self == NULL) return KAC_E_MEMORY;
    r->self = self, r->prepare = outside_prepare, r->score = outside_score, r->close = outside_close;
    self->command = kac_strdup(command);
    if (self->command == NULL) return KAC_E_MEMORY;
    if (!r->c->model.counting) return kac_child_start(&self->child, command);
    char **words; /* a rehearsal tells what is wrong with the text */
    KAC_TRY(kac_command_words(&words, command));
    kac_free(words);
    return KAC_OK;
}
