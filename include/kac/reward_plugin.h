/* A reward from a shared library: `--reward plugin=./mine.so`. This header is all that a plug-in needs; it does not link to libkac.
 *
 *     #include <kac/reward_plugin.h>
 *
 *     static int score(void *self, const kac_plugin_picture *pictures, int n, double *rewards, char *error, size_t n_error) {
 *         for (int i = 0; i < n; i++) rewards[i] = pictures[i].rgb[0] / 255.0;
 *         return 0;
 *     }
 *     static const kac_reward_plugin plugin = {.abi = KAC_REWARD_PLUGIN_ABI, .score = score};
 *     KAC_REWARD_PLUGIN_EXPORT(&plugin)
 *
 *     cc -shared -fPIC mine.c -o mine.so
 *
 * Every function is called from one thread at a time. A function that fails returns something other than 0 and may write why into
 * error (n_error bytes, UTF-8, terminated); the run then stops with that line. A reward that is not finite stops it too. */
#ifndef KAC_REWARD_PLUGIN_H
#define KAC_REWARD_PLUGIN_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Raised when the structs below change; a plug-in built for another number is refused by name. */
#define KAC_REWARD_PLUGIN_ABI 1

typedef struct kac_plugin_picture {
    const unsigned char *rgb; /* [height, width, 3], top row first */
    int width, height;
    const char *prompt; /* UTF-8; "" when there is none */
} kac_plugin_picture;

typedef struct kac_reward_plugin {
    unsigned abi;     /* KAC_REWARD_PLUGIN_ABI */
    int needs_prompt; /* not 0: pictures without a prompt are refused before score sees them */
    /* argument: what follows the path in --reward 'plugin=mine.so ARGUMENT', "" when nothing does. *self is passed on. NULL: nothing to
     * open, self is NULL. */
    int (*open)(void **self, const char *argument, char *error, size_t n_error);
    /* rewards [n]: higher is better. Pictures may differ in size; memory is lent for the call. */
    int (*score)(void *self, const kac_plugin_picture *pictures, int n, double *rewards, char *error, size_t n_error);
    void (*close)(void *self); /* NULL: nothing to close */
} kac_reward_plugin;

/* Defines the one function that is looked up in a plug-in, kac_reward_plugin_get. */
#if defined(__GNUC__)
#define KAC_REWARD_PLUGIN_VISIBLE __attribute__((visibility("default")))
#else
#define KAC_REWARD_PLUGIN_VISIBLE
#endif
#ifdef __cplusplus
#define KAC_REWARD_PLUGIN_LINKAGE extern "C"
#else
#define KAC_REWARD_PLUGIN_LINKAGE
#endif
#define KAC_REWARD_PLUGIN_EXPORT(plugin)                                                                               \
    KAC_REWARD_PLUGIN_LINKAGE KAC_REWARD_PLUGIN_VISIBLE const kac_reward_plugin *kac_reward_plugin_get(void);          \
    KAC_REWARD_PLUGIN_LINKAGE KAC_REWARD_PLUGIN_VISIBLE const kac_reward_plugin *kac_reward_plugin_get(void) {         \
        return (plugin);                                                                                               \
    }

#ifdef __cplusplus
}
#endif
#endif
