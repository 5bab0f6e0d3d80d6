/* One document, two faces: JSON, or lines and tables for people. */
#ifndef KAC_CLI_SHOW_H
#define KAC_CLI_SHOW_H

#include "cli.h"

/* Prints the document (an object) as cli->json says and deletes it. Lists of objects become tables; numbers whose key ends in "bytes"
 * are shown in KiB, MiB, … */
kac_status kac_cli_show(const kac_cli *cli, cJSON *document);

#endif
