/* kac completion bash|zsh|man: the shell completions and the manual page, written from the option tables. tools/completion/ and tools/man/
 * hold what it prints; a test fails when they are out of date. */
#include "cli.h"
#include <stdio.h>
#include <string.h>

typedef void (*option_visitor)(const kac_option_spec *s);

static const kac_cli_command *current; /* whose options are visited */

static void each_of(const kac_option_spec *s, option_visitor visit) {
    for (; s != NULL && s->name != NULL; s++) visit(s);
}

/* All options of a command, those of every method included. */
static void each_option(const kac_cli_command *c, option_visitor visit) {
    current = c;
    each_of(c->options, visit);
    if (c->methods != NULL) {
        kac_cli_method m;
        each_of(c->methods->shared, visit);
        for (int i = 0; c->methods->at(&m, i); i++) each_of(m.options, visit);
    }
    each_of(kac_cli_common_options(c), visit);
}

static bool chooses_method(const kac_option_spec *s) {
    return current->methods != NULL && strcmp(s->name, current->methods->option) == 0;
}

static void print_methods(void) {
    kac_cli_method m;
    for (int i = 0; current->methods->at(&m, i); i++) printf("%s ", m.name);
}

/* "a|b" with spaces for '|'. */
static void print_choices(const char *choices) {
    for (; *choices != '\0'; choices++) putchar(*choices == '|' ? ' ' : *choices);
}

/* ---- bash ---- */

static void bash_word(const kac_option_spec *s) {
    printf(" --%s", s->name);
    if (s->type == KAC_OPT_BOOL && s->value != NULL && strcmp(s->value, "true") == 0) printf(" --no-%s", s->name);
}

static void bash_values(const kac_option_spec *s) {
    const bool is_method = chooses_method(s);
    if (s->type != KAC_OPT_CHOICE && !is_method) return;
    printf("    \"%s --%s\"", current->name, s->name);
    if (s->letter != 0) printf(" | \"%s -%c\"", current->name, s->letter);
    printf(") words=\"");
    if (is_method)
        print_methods();
    else
        print_choices(s->choices);
    printf("\" ;;\n");
}

static void print_bash(void) {
    printf("# bash completion of kac, written by `kac completion bash`\n_kac() {\n"
           "    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} words=\n    COMPREPLY=()\n"
           "    if [ \"$COMP_CWORD\" -eq 1 ]; then\n        words=\"");
    for (const kac_cli_command *const *c = kac_cli_commands(); *c != NULL; c++) printf("%s ", (*c)->name);
    printf("help --help --version\"\n        COMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n        return\n    fi\n"
           "    case \"${COMP_WORDS[1]} $prev\" in\n");
    for (const kac_cli_command *const *c = kac_cli_commands(); *c != NULL; c++) each_option(*c, bash_values);
    printf("    esac\n    if [ -z \"$words\" ] && [[ $cur == -* ]]; then\n        case ${COMP_WORDS[1]} in\n");
    for (const kac_cli_command *const *c = kac_cli_commands(); *c != NULL; c++) {
        printf("        %s) words=\"", (*c)->name);
        each_option(*c, bash_word);
        printf("\" ;;\n");
    }
    printf("        esac\n    fi\n    if [ -n \"$words\" ]; then\n        COMPREPLY=($(compgen -W \"$words\" -- "
           "\"$cur\"))\n    else\n"
           "        COMPREPLY=($(compgen -f -- \"$cur\"))\n    fi\n}\ncomplete -o filenames -F _kac kac\n");
}

/* ---- zsh ---- */

/* Inside '…[here]…': quotes, brackets and colons escaped. */
static void zsh_text(const char *s) {
    for (; *s != '\0'; s++) {
        if (*s == '\'')
            printf("'\\''");
        else if (strchr("[]:\\", *s) != NULL)
            printf("\\%c", *s);
        else
            putchar(*s);
    }
}

static void zsh_option(const kac_option_spec *s) {
    printf("        ");
    if (s->repeatable)
        printf("'*'");
    else if (s->letter != 0)
        printf("'(-%c --%s)'", s->letter, s->name);
    if (s->letter != 0)
        printf("{-%c,--%s}'[", s->letter, s->name);
    else
        printf("'--%s[", s->name);
    zsh_text(s->help == NULL ? "" : s->help);
    printf("]");
    if (s->type != KAC_OPT_BOOL) {
        printf(":%s:", s->meta == NULL ? "value" : "");
        if (s->type == KAC_OPT_CHOICE) {
            printf("(");
            print_choices(s->choices);
            printf(")");
        } else if (chooses_method(s)) {
            printf("(");
            print_methods();
            printf(")");
        } else if (s->meta != NULL && (strcmp(s->meta, "FILE") == 0 || strcmp(s->meta, "DIR") == 0)) {
            printf("_files");
        }
    }
    printf("' \\\n");
}

static void print_zsh(void) {
    printf("#compdef kac\n# written by `kac completion zsh`\nlocal -a commands\ncommands=(\n");
    for (const kac_cli_command *const *c = kac_cli_commands(); *c != NULL; c++) {
        printf("    '%s:", (*c)->name);
        zsh_text((*c)->summary);
        printf("'\n");
    }
    printf(")\nif (( CURRENT == 2 )); then\n    _describe command commands\n    return\nfi\nlocal command=$words[2]\n"
           "shift words\n(( CURRENT-- ))\ncase $command in\n");
    for (const kac_cli_command *const *c = kac_cli_commands(); *c != NULL; c++) {
        printf("    %s)\n        _arguments \\\n", (*c)->name);
        each_option(*c, zsh_option);
        printf("        '*:file:_files' ;;\n");
    }
    printf("esac\n");
}

/* ---- manual page ---- */

/* Text for troff: backslashes and dashes escaped, no line begins with a dot or quote. */
static void man_text(const char *s) {
    if (*s == '.' || *s == '\'') printf("\\&");
    for (; *s != '\0'; s++) {
        if (*s == '\\')
            printf("\\e");
        else if (*s == '-')
            printf("\\-");
        else
            putchar(*s);
        if (*s == '|') printf("\\:"); /* a line may break here */
    }
}

static void man_option(const kac_option_spec *s) {
    printf(".TP\n");
    printf("\\fB");
    if (s->letter != 0) printf("\\-%c\\fR, \\fB", s->letter);
    man_text("--");
    man_text(s->name);
    printf("\\fR");
    if (s->type != KAC_OPT_BOOL) {
        printf(" \\fI");
        man_text(s->meta != NULL ? s->meta : s->type == KAC_OPT_CHOICE ? s->choices : "N");
        printf("\\fR");
    }
    printf("\n");
    man_text(s->help == NULL ? "" : s->help);
    if (s->value != NULL && s->value[0] != '\0' && s->type != KAC_OPT_BOOL) {
        printf("; default ");
        man_text(s->value);
    }
    printf(".\n");
}

static void man_command(const kac_cli_command *c) {
    printf(".SH KAC ");
    for (const char *p = c->name; *p != '\0'; p++) putchar(*p >= 'a' && *p <= 'z' ? *p - 'a' + 'A' : *p);
    printf("\n.B kac %s\n[\\fIoptions\\fR] ", c->name);
    man_text(c->words_usage);
    printf("\n.PP\n");
    man_text(c->summary);
    printf("\n");
    each_of(c->options, man_option);
    if (c->methods == NULL) return;
    if (c->methods->shared != NULL) printf(".SS %s\n", c->methods->shared_title);
    each_of(c->methods->shared, man_option);
    kac_cli_method m;
    for (int i = 0; c->methods->at(&m, i); i++) {
        printf(".SS \\-\\-%s ", c->methods->option);
        man_text(m.name);
        printf("\n");
        man_text(m.summary);
        printf(".\n");
        each_of(m.options, man_option);
    }
}

static void print_man(void) {
    printf(".\\\" written by `kac completion man`\n.TH KAC 1 \"\" \"kac %s\" \"User Commands\"\n.ad l\n.SH NAME\n"
           "kac \\- steer diffusion models by rewards\n.SH SYNOPSIS\n",
           KAC_VERSION);
    for (const kac_cli_command *const *c = kac_cli_commands(); *c != NULL; c++) {
        printf(".B kac %s\n[\\fIoptions\\fR] ", (*c)->name);
        man_text((*c)->words_usage);
        printf("\n.br\n");
    }
    printf(".SH DESCRIPTION\nkac makes pictures from prompts with diffusion models in the layout of diffusers, and "
           "steers them by rewards\n"
           "while they form: many particles are denoised together, weighted by what they promise, and resampled.\n"
           "Every run leaves a folder with its pictures, everything that was asked and measured, and a page.\n"
           ".PP\nOptions of every command:\n");
    for (const kac_option_spec *s = kac_cli_common_options(NULL); s->name != NULL; s++) man_option(s);
    for (const kac_cli_command *const *c = kac_cli_commands(); *c != NULL; c++) man_command(*c);
    printf(".SH EXIT STATUS\n0 fine, 1 failed, 2 wrong usage, 130 stopped by Ctrl\\-C (a run can be resumed).\n"
           ".SH ENVIRONMENT\n.TP\n.B KAC_WEIGHTS\nFolder of the shipped models, in place of the installed one.\n");
}

static kac_status run(kac_cli *cli) {
    const char *what = cli->words[0];
    if (strcmp(what, "bash") == 0)
        print_bash();
    else if (strcmp(what, "zsh") == 0)
        print_zsh();
    else if (strcmp(what, "man") == 0)
        print_man();
    else
        return KAC_FAIL(KAC_E_USAGE, "'%.60s': bash, zsh or man?", what);
    return KAC_OK;
}

const kac_cli_command kac_cli_completion = {
    .name = "completion",
    .summary = "The shell completions and the manual page.",
    .words_usage = "bash|zsh|man",
    .min_words = 1,
    .max_words = 1,
    .options = (const kac_option_spec[]){{NULL}},
    .run = run,
};
