/* Status codes and the one error pattern.
 *
 *     kac_status kac_vae_decode(...) {
 *         if (bad) return KAC_FAIL(KAC_E_SHAPE, "latent has %d channels, this VAE wants %d", got, want);
 *         KAC_TRY(kac_conv2d(...));
 *         return KAC_OK;
 *     }
 *
 * A status is for the outside world: files, sizes from users, memory, devices, non-finite numbers. The message is
 * written once, where it happens, with what a user can do about it; callers only forward. An assert is for our own bugs
 * and stays on in release. */
#ifndef KAC_STATUS_H
#define KAC_STATUS_H

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

/* name, text for people */
#define KAC_STATUS_LIST(X)                                                                                             \
    X(KAC_OK, "ok")                                                                                                    \
    X(KAC_E_USAGE, "wrong usage")                                                                                      \
    X(KAC_E_SHAPE, "shapes do not fit")                                                                                \
    X(KAC_E_IO, "file or folder cannot be read or written")                                                            \
    X(KAC_E_FORMAT, "malformed file")                                                                                  \
    X(KAC_E_UNSUPPORTED, "not supported")                                                                              \
    X(KAC_E_MEMORY, "not enough memory")                                                                               \
    X(KAC_E_NONFINITE, "a number is not finite")                                                                       \
    X(KAC_E_DEVICE, "device failed")                                                                                   \
    X(KAC_E_CANCELLED, "cancelled")

typedef enum kac_status {
#define KAC_STATUS_ENUM(name, text) name,
    KAC_STATUS_LIST(KAC_STATUS_ENUM)
#undef KAC_STATUS_ENUM
} kac_status;

/* "malformed file" for KAC_E_FORMAT; never NULL. */
const char *kac_status_text(kac_status status);

/* The message of the last failure on this thread, one line without newline; "" when there was none. Valid until the
 * next failure on the same thread. */
const char *kac_error(void);

/* Stores the message for kac_error and returns `status`. */
kac_status kac_fail(kac_status status, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* As kac_fail, with "prefix: " put before the message that is already stored. Returns `status`. */
kac_status kac_fail_prefix(kac_status status, const char *format, ...) __attribute__((format(printf, 2, 3)));

#define KAC_FAIL(status, ...) kac_fail((status), __VA_ARGS__)
#define KAC_TRY(expr)                                                                                                  \
    do {                                                                                                               \
        const kac_status kac_try_status_ = (expr);                                                                     \
        if (kac_try_status_ != KAC_OK) return kac_try_status_;                                                         \
    } while (0)

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
#endif
