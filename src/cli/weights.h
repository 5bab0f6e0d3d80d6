/* Where the shipped models lie. */
#ifndef KAC_CLI_WEIGHTS_H
#define KAC_CLI_WEIGHTS_H

#include "base/base.h"

/* $KAC_WEIGHTS, else ../share/kac/weights beside the program's folder (installed), else the source tree's. Caller frees; NULL when
 * out of memory. */
char *kac_cli_weights_dir(void);

#endif
