/* The options of one run, as `kac generate` takes them: flags, --help, the config file, validation and the page come from this table
 * and that of the chosen method. */
#ifndef KAC_RUN_GENERATE_OPTIONS_H
#define KAC_RUN_GENERATE_OPTIONS_H

#include <kac/options.h>

extern const kac_option_spec kac_generate_options[];

#endif
