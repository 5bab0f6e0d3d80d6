#include "reward/plugin_reward.h"
#include <dlfcn.h>
#include <kac/reward_plugin.h>
#include <math.h>
#include <string.h>

enum { MAX_ERROR = 512 };

typedef struct plugin_reward {
    void *library;
    const kac_reward_plugin *plugin; /* NULL until it was accepted */
    void *state;                     /* the plug-in's own */
    bool is_open;                    /* close is owed */
} plugin_reward;

static void plugin_close(kac_image_reward *r) {
    plugin_reward *self = r->self;
    if (self->is_open && self->plugin->close != NULL) self->plugin->close(self->state);
    if (self->library != NULL) dlclose(self->library);
    kac_free(self);
}

/* What a plug-in wrote is one line, or nothing. */
static kac_status plugin_failed(const kac_image_reward *r, const char *what, int code, char error[MAX_ERROR]) {
    error[MAX_ERROR - 1] = '\0';
    error[strcspn(error, "\r\n")] = '\0';
    if (error[0] != '\0') return KAC_FAIL(KAC_E_DEVICE, "reward %s: %s", r->name, error);
    return KAC_FAIL(KAC_E_DEVICE, "reward %s: its %s failed with code %d and did not say why", r->name, what, code);
}

static kac_status plugin_score(kac_image_reward *r, const kac_picture *pictures, int n, double *out) {
    plugin_reward *self = r->self;
    kac_plugin_picture *list = kac_arena_take(&r->c->scratch, (size_t)n * sizeof *list);
    if (list == NULL) return KAC_E_MEMORY;
    for (int i = 0; i < n; i++) out[i] = 0;
    if (r->c->model.counting) return KAC_OK;
    for (int i = 0; i < n; i++)
        list[i] = (kac_plugin_picture){.rgb = pictures[i].rgb,
                                       .width = pictures[i].width,
                                       .height = pictures[i].height,
                                       .prompt = r->n_prompts > 0 ? r->prompts[pictures[i].prompt] : ""};
    for (int i = 0; i < n; i++) out[i] = NAN; /* one that is left out must not pass for 0 */
    char error[MAX_ERROR] = "";
    const int code = self->plugin->score(self->state, list, n, out, error, sizeof error);
    if (code != 0) return plugin_failed(r, "score", code, error);
    for (int i = 0; i < n; i++)
        if (!isfinite(out[i]))
            return KAC_FAIL(KAC_E_NONFINITE, "reward %s gave %g for picture %d of %d", r->name, out[i], i + 1, n);
    return KAC_OK;
}

/* FILE.so ARGUMENT → both; a path with spaces stays whole as long as it does not hold ".so ". A name without '/' is one of this folder. */
static kac_status split_path(char **file, const char **argument, const char *path) {
    const char *space = strstr(path, ".so ");
    const size_t n = space == NULL ? strlen(path) : (size_t)(space + 3 - path);
    *argument = path + n + strspn(path + n, " ");
    *file = kac_format("%s%.*s", memchr(path, '/', n) == NULL ? "./" : "", (int)n, path);
    return *file == NULL ? KAC_E_MEMORY : KAC_OK;
}

static kac_status load(plugin_reward *self, const char *file) {
    self->library = dlopen(file, RTLD_NOW | RTLD_LOCAL);
    if (self->library == NULL) return KAC_FAIL(KAC_E_IO, "cannot load the plug-in %s: %s", file, dlerror());
    const kac_reward_plugin *(*get)(void);
    void *symbol = dlsym(self->library, "kac_reward_plugin_get");
    if (symbol == NULL)
        return KAC_FAIL(KAC_E_UNSUPPORTED,
                        "%s is no reward plug-in: it lacks kac_reward_plugin_get (see kac/reward_plugin.h)", file);
    memcpy(&get, &symbol, sizeof get); /* ISO C has no cast from an object to a function */
    const kac_reward_plugin *plugin = get();
    if (plugin == NULL || plugin->abi != KAC_REWARD_PLUGIN_ABI)
        return KAC_FAIL(KAC_E_UNSUPPORTED, "%s is a reward plug-in of ABI %u, this kac wants %d: build it again", file,
                        plugin == NULL ? 0 : plugin->abi, KAC_REWARD_PLUGIN_ABI);
    if (plugin->score == NULL) return KAC_FAIL(KAC_E_UNSUPPORTED, "the plug-in %s has no score function", file);
    self->plugin = plugin;
    return KAC_OK;
}

kac_status kac_plugin_reward_open(kac_image_reward *r, const char *path) {
    plugin_reward *self = kac_alloc(sizeof *self);
    if (self == NULL) return KAC_E_MEMORY;
    r->self = self, r->score = plugin_score, r->close = plugin_close;
    char *file, error[MAX_ERROR] = "";
    const char *argument;
    KAC_TRY(split_path(&file, &argument, path));
    const kac_status s = load(self, file);
    kac_free(file);
    KAC_TRY(s);
    r->needs_prompt = self->plugin->needs_prompt != 0;
    if (self->plugin->open == NULL) return KAC_OK;
    const int code = self->plugin->open(&self->state, argument, error, sizeof error);
    if (code != 0) return plugin_failed(r, "open", code, error);
    self->is_open = true;
    return KAC_OK;
}
