/* The options of `kac tune` itself; those of every method are kac_trainer_options, each method adds its own. */
#ifndef KAC_RUN_TUNE_OPTIONS_H
#define KAC_RUN_TUNE_OPTIONS_H

#include <kac/options.h>

extern const kac_option_spec kac_tune_options[];

#endif
