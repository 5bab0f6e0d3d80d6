/* What the commands of the program share: a table of commands, arguments read by option tables, help, messages. */
#ifndef KAC_CLI_H
#define KAC_CLI_H

#include "base/base.h"
#include "base/json.h"
#include <kac/options.h>
#include <kac/steer.h>

struct kac_cli_command;

/* A command that does its work by one of several methods, each with options of its own. */
typedef struct kac_cli_method {
    const char *name, *summary;
    const kac_option_spec *options; /* ends with a NULL name */
    const char *target;             /* what its samples stand for; NULL: nothing is said */
} kac_cli_method;

typedef struct kac_cli_methods {
    const char *option;                     /* whose value is the method's name: "steer" */
    const char *what;                       /* for messages: "steering method" */
    bool (*at)(kac_cli_method *out, int i); /* false: there is no method i */
    const kac_option_spec *shared;          /* options of all of them beside the command's; NULL: none */
    const char *shared_title;
    /* What the chosen method makes of options once all are read, e.g. of a preset; NULL: nothing. */
    kac_status (*settle)(kac_options *o, const char *method);
} kac_cli_methods;

/* false when there is none of that name. */
bool kac_cli_method_find(kac_cli_method *out, const kac_cli_methods *methods, const char *name);

/* One invocation, arguments read. */
typedef struct kac_cli {
    const struct kac_cli_command *command;
    kac_options *options;
    const char **words; /* what is not an option, in order */
    int n_words;
    char **argv; /* as typed */
    int argc;
    bool json;     /* one JSON document on stdout, all else on stderr */
    bool answered; /* the document was printed, also when the status is a failure */
} kac_cli;

typedef struct kac_cli_command {
    const char *name;
    const char *summary;            /* one line */
    const char *words_usage;        /* "PROMPT...", "[PATH]" */
    int min_words, max_words;       /* max −1: any number */
    const char *words_option;       /* the repeatable option that words are values of; NULL: they stay words */
    const kac_option_spec *options; /* ends with a NULL name */
    const kac_cli_methods *methods; /* the chosen one's options belong to it too; NULL: it has none */
    const char *notes;              /* after the options in --help; NULL: none */
    kac_status (*run)(kac_cli *cli);
} kac_cli_command;

extern const kac_cli_command kac_cli_generate, kac_cli_score, kac_cli_report, kac_cli_info, kac_cli_convert,
    kac_cli_run, kac_cli_tune, kac_cli_bench, kac_cli_completion;

/* Ends with NULL; those after the first NULL are not listed by --help. */
const kac_cli_command *const *kac_cli_commands(void);
const kac_cli_command *kac_cli_command_find(const char *name);

/* --config, --json, --help; without --config for a command that has an option of that name itself. NULL: all. */
const kac_option_spec *kac_cli_common_options(const kac_cli_command *command);

/* Reads argv[2 …] into cli->options and cli->words. KAC_E_USAGE, IO or FORMAT (--config). Sets *help when --help was given: nothing
 * else is then checked. The caller ends with kac_cli_free, also on failure. */
kac_status kac_cli_parse(kac_cli *cli, const kac_cli_command *command, int argc, char **argv, bool *help);
void kac_cli_free(kac_cli *cli);

/* --help, to stdout. With the name of a method only its options are shown. */
void kac_cli_help(const kac_cli_command *command, const char *method);
void kac_cli_help_all(void);

/* One line on stderr, "kac generate: …"; control characters become '?'. */
void kac_cli_complain(const char *command, const char *message);
/* Prints the document with a newline and deletes it. */
kac_status kac_cli_print_json(cJSON *document);
/* "1.5 GiB" into a buffer; returns it. */
const char *kac_cli_bytes(double n, char buffer[32]);
/* Text from files and users on a terminal: control characters become '?'. To stdout. */
void kac_cli_print_text(const char *s);

#endif
