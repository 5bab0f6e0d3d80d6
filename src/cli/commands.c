#include "cli.h"
#include <string.h>

static const kac_cli_command *const commands[] = {
    &kac_cli_generate, &kac_cli_tune, &kac_cli_bench, &kac_cli_score, &kac_cli_report,     &kac_cli_info,
    &kac_cli_convert,  &kac_cli_run,  NULL,           &kac_cli_completion, NULL,
};

const kac_cli_command *const *kac_cli_commands(void) {
    return commands;
}

const kac_cli_command *kac_cli_command_find(const char *name) {
    for (int i = 0; i < KAC_COUNT_OF(commands); i++)
        if (commands[i] != NULL && strcmp(commands[i]->name, name) == 0) return commands[i];
    return NULL;
}
