/* kac: only dispatches; each command is one file. Exit code 0 fine, 1 failed, 2 wrong usage, 130 stopped by Ctrl-C. */
#include "cli.h"
#include <signal.h>
#include <stdio.h>
#include <string.h>

static int exit_code(kac_status status) {
    switch (status) {
    case KAC_OK:
        return 0;
    case KAC_E_USAGE:
        return 2;
    case KAC_E_CANCELLED:
        return 130;
    default:
        return 1;
    }
}

static int unknown_command(const char *name) {
    const char *names[64];
    int n = 0;
    for (const kac_cli_command *const *c = kac_cli_commands(); *c != NULL && n < KAC_COUNT_OF(names) - 1; c++)
        names[n++] = (*c)->name;
    names[n] = NULL;
    const char *nearest = kac_nearest(name, names);
    kac_fail(KAC_E_USAGE, "unknown command '%.60s'; %s%s%s", name,
             nearest ? "did you mean " : "'kac --help' lists them", nearest ? nearest : "", nearest ? "?" : "");
    kac_cli_complain(NULL, kac_error());
    return 2;
}

/* The method that the raw arguments name, for --help. */
static const char *method_given(const kac_cli_methods *methods, int argc, char **argv) {
    const size_t n = methods == NULL ? 0 : strlen(methods->option);
    for (int i = 2; i < argc && methods != NULL; i++) {
        if (strncmp(argv[i], "--", 2) != 0 || strncmp(argv[i] + 2, methods->option, n) != 0) continue;
        if (argv[i][2 + n] == '\0' && i + 1 < argc) return argv[i + 1];
        if (argv[i][2 + n] == '=') return argv[i] + 3 + n;
    }
    return NULL;
}

static int run_command(const kac_cli_command *command, int argc, char **argv) {
    kac_cli cli;
    bool help = false;
    kac_status status = kac_cli_parse(&cli, command, argc, argv, &help);
    if (help) {
        kac_cli_help(command, method_given(command->methods, argc, argv));
        status = KAC_OK;
    } else if (status == KAC_OK) {
        status = command->run(&cli);
    }
    if (status != KAC_OK) {
        kac_cli_complain(command->name, kac_error());
        if (cli.json && !cli.answered) {
            cJSON *document = cJSON_CreateObject();
            cJSON_AddStringToObject(document, "error", kac_error());
            cJSON_AddNumberToObject(document, "exit_code", exit_code(status));
            (void)kac_cli_print_json(document); /* what failed first is what counts */
        }
    }
    kac_cli_free(&cli);
    if (status == KAC_OK && (fflush(stdout) != 0 || ferror(stdout))) {
        kac_cli_complain(command->name, "cannot write to standard output");
        return 1;
    }
    return exit_code(status);
}

int main(int argc, char **argv) {
    signal(SIGXFSZ, SIG_IGN); /* a file that may not grow is a failed write, with a message */
    if (argc < 2) {
        kac_cli_complain(NULL, "which command? 'kac --help' lists them");
        return 2;
    }
    const char *name = argv[1];
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0 || (strcmp(name, "help") == 0 && argc == 2)) {
        kac_cli_help_all();
        return fflush(stdout) == 0 ? 0 : 1;
    }
    if (strcmp(name, "--version") == 0) {
        printf("kac %s\n", KAC_VERSION);
        return fflush(stdout) == 0 ? 0 : 1;
    }
    if (strcmp(name, "help") == 0) {
        const kac_cli_command *command = kac_cli_command_find(argv[2]);
        if (command == NULL) return unknown_command(argv[2]);
        kac_cli_help(command, NULL);
        return fflush(stdout) == 0 ? 0 : 1;
    }
    const kac_cli_command *command = kac_cli_command_find(name);
    return command == NULL ? unknown_command(name) : run_command(command, argc, argv);
}
