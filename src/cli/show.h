/* One document, two faces: JSON, or lines and tables for people. */
#ifndef KAC_CLI_SHOW_H
#define KAC_CLI_SHOW_H

#include "cli.h"

/* Prints the document (an object) as cli->json says and deletes it. Lists of objects become tables; numbers whose key ends in "bytes"
 * are shown in KiB, MiB, … */
kac_status kac_cli_show(const kac_cli *cli, cJSON *document);

/* The end of a run that came to `status`, its message being kac_error(): the page is made of what is there, also of a run that stopped;
 * *page is its path, caller frees. Returns `status` with its message, what failed first being what counts: a run that was stopped says
 * how `kac COMMAND --resume` goes on to the same `what`, with `why` before it (NULL: the message). */
kac_status kac_cli_end_run(char **page, const kac_cli *cli, const char *folder, kac_status status, const char *why,
                           const char *what);

#endif
