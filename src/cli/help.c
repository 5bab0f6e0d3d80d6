/* --help, written from the option tables. */
#include "cli.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { HELP_COLUMN = 30 };

static void print_range(const kac_option_spec *s) {
    if (s->type != KAC_OPT_INT && s->type != KAC_OPT_REAL && s->type != KAC_OPT_LIST) return;
    if (s->min == s->max) return;
    if (fabs(s->max) >= 1e15 || isinf(s->max))
        printf("; %.10g or more", s->min);
    else
        printf("; %.10g to %.10g", s->min, s->max);
}

static void print_option(const kac_option_spec *s) {
    char left[96];
    const char *meta = s->meta != NULL             ? s->meta
                       : s->type == KAC_OPT_CHOICE ? "NAME"
                       : s->type == KAC_OPT_TEXT   ? "TEXT"
                                                   : "N";
    int n = s->letter != 0 ? snprintf(left, sizeof left, "  -%c, --%s", s->letter, s->name)
                           : snprintf(left, sizeof left, "      --%s", s->name);
    if (s->type != KAC_OPT_BOOL) n += snprintf(left + n, sizeof left - (size_t)n, " %s", meta);
    printf("%s%*s", left, n < HELP_COLUMN - 1 ? HELP_COLUMN - n : 1, "");
    printf("%s", s->help == NULL ? "" : s->help);
    const bool is_flag = s->type == KAC_OPT_BOOL;
    if (s->type == KAC_OPT_CHOICE) printf(" [%s]", s->choices);
    if (s->value != NULL && s->value[0] != '\0' && (!is_flag || strcmp(s->value, "true") == 0))
        is_flag ? printf(" (default: on; --no-%s)", s->name) : printf(" (default: %s", s->value);
    const bool open = s->value != NULL && s->value[0] != '\0' && !is_flag;
    if (open) {
        print_range(s);
        printf(")");
    }
    if (s->repeatable) printf(" (repeatable)");
    printf("\n");
}

static void print_table(const char *title, const kac_option_spec *table) {
    if (table->name == NULL) return;
    printf("\n%s\n", title);
    for (; table->name != NULL; table++) print_option(table);
}

static void print_methods(const kac_cli_methods *methods, const char *only) {
    kac_cli_method m;
    if (methods->shared != NULL) print_table(methods->shared_title, methods->shared);
    if (only != NULL && !kac_cli_method_find(&m, methods, only)) only = NULL;
    for (int i = 0; methods->at(&m, i); i++) {
        if (only != NULL && strcmp(m.name, only) != 0) continue;
        printf("\n--%s %s: %s\n", methods->option, m.name, m.summary);
        if (m.target != NULL) printf("  target: %s\n", m.target);
        for (const kac_option_spec *s = m.options; s->name != NULL; s++) print_option(s);
    }
}

void kac_cli_help(const kac_cli_command *command, const char *method) {
    printf("usage: kac %s [options] %s\n\n%s\n", command->name, command->words_usage, command->summary);
    print_table("options:", command->options);
    if (command->methods != NULL) print_methods(command->methods, method);
    print_table("always:", kac_cli_common_options(command));
    if (command->notes != NULL) printf("\n%s", command->notes);
}

void kac_cli_help_all(void) {
    printf("kac %s steers diffusion models by rewards\n\nusage: kac COMMAND [options] ...\n\n", KAC_VERSION);
    for (const kac_cli_command *const *c = kac_cli_commands(); *c != NULL; c++)
        printf("  %-10s %s\n", (*c)->name, (*c)->summary);
    printf("\n'kac COMMAND --help' tells all options of a command.\n");
}
