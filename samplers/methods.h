/* The steering methods, one file each; list.c names them. */
#ifndef KAC_SAMPLERS_METHODS_H
#define KAC_SAMPLERS_METHODS_H

#include <kac/steer.h>

extern const kac_method kac_method_none, kac_method_best_of_n, kac_method_fk, kac_method_dps, kac_method_tds,
    kac_method_das, kac_method_is, kac_method_svdd, kac_method_code, kac_method_dts, kac_method_dts_star;
extern const kac_method kac_method_noise_random, kac_method_noise_zero_order, kac_method_noise_paths, kac_method_reno,
    kac_method_psi, kac_method_demon;
extern const kac_method kac_method_dsearch, kac_method_rbf;

/* Of every method that weighs by rewards. 10 is what the FK steering paper uses for rewards that vary by about 1 over the samples of
 * one prompt: a sample that is one such unit better weighs e^10. */
#define KAC_OPTION_LAMBDA                                                                                              \
    { "lambda", 0, KAC_OPT_REAL, "10", -1e6, 1e6, NULL, "X", "target density: base × exp(X · reward)", false }
/* Names of the method's presets, by |. */
#define KAC_OPTION_PRESET(names, what)                                                                                 \
    {                                                                                                                  \
        "preset", 0, KAC_OPT_CHOICE, NULL, 0, 0, names, NULL,                                                          \
            "published settings, for all options that are not given: " what, false                                     \
    }
#define KAC_OPTIONS_END                                                                                                \
    { NULL, 0, KAC_OPT_BOOL, NULL, 0, 0, NULL, NULL, NULL, false }

#endif
