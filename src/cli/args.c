/* Arguments → options. Which words are values of which option is known from the tables alone, so an option's value may begin with a
 * dash ("--eta -1" is an error of range, not an unknown option). */
#include "cli.h"
#include <stdio.h>
#include <string.h>

static const kac_option_spec common_options[] = {
    {"config", 0, KAC_OPT_TEXT, NULL, .meta = "FILE",
     .help = "read options from a JSON object {\"name\": value}; flags win"},
    {"json", 0, KAC_OPT_BOOL, "false", .help = "one JSON document on standard output, all else on standard error"},
    {"help", 'h', KAC_OPT_BOOL, "false", .help = "this help"},
    {NULL},
};

/* One option as it stands in the arguments. */
typedef struct arg_item {
    const kac_option_spec *spec;
    const char *value;
} arg_item;

static const kac_option_spec *find_in(const kac_option_spec *table, const char *name, size_t n, char letter) {
    for (; table->name != NULL; table++)
        if (name != NULL ? strlen(table->name) == n && memcmp(table->name, name, n) == 0 : table->letter == letter)
            return table;
    return NULL;
}

static bool takes_config(const kac_cli_command *command) {
    return command == NULL || find_in(command->options, "config", 6, 0) == NULL;
}

const kac_option_spec *kac_cli_common_options(const kac_cli_command *command) {
    return takes_config(command) ? common_options : common_options + 1;
}

/* By name (n bytes), or by letter when name is NULL. All methods' options are known here; whether the one belongs to the chosen method
 * is checked later, with a better message. */
static const kac_option_spec *find_spec(const kac_cli_command *command, const char *name, size_t n, char letter) {
    const kac_option_spec *spec = find_in(command->options, name, n, letter);
    if (spec == NULL) spec = find_in(kac_cli_common_options(command), name, n, letter);
    if (spec != NULL || command->methods == NULL) return spec;
    if (command->methods->shared != NULL) spec = find_in(command->methods->shared, name, n, letter);
    kac_cli_method m;
    for (int i = 0; spec == NULL && command->methods->at(&m, i); i++) spec = find_in(m.options, name, n, letter);
    return spec;
}

bool kac_cli_method_find(kac_cli_method *out, const kac_cli_methods *methods, const char *name) {
    for (int i = 0; methods->at(out, i); i++)
        if (strcmp(out->name, name) == 0) return true;
    return false;
}

/* Names of a table's options into names[*n …]. */
static void add_names(const char **names, int *n, int room, const kac_option_spec *table) {
    for (; table != NULL && table->name != NULL && *n < room; table++) names[(*n)++] = table->name;
}

static kac_status unknown_option(const kac_cli_command *command, const char *arg) {
    const char *names[512];
    int n = 0;
    const int room = KAC_COUNT_OF(names) - 1;
    add_names(names, &n, room, command->options);
    add_names(names, &n, room, kac_cli_common_options(command));
    if (command->methods != NULL) {
        kac_cli_method m;
        add_names(names, &n, room, command->methods->shared);
        for (int i = 0; command->methods->at(&m, i); i++) add_names(names, &n, room, m.options);
    }
    names[n] = NULL;
    const char *bare = arg + strspn(arg, "-");
    char name[64];
    snprintf(name, sizeof name, "%.*s", (int)KAC_MIN(strcspn(bare, "="), sizeof name - 1), bare);
    const char *nearest = arg[1] == '-' ? kac_nearest(name, names) : NULL;
    if (nearest != NULL) return KAC_FAIL(KAC_E_USAGE, "unknown option --%s; did you mean --%s?", name, nearest);
    return KAC_FAIL(KAC_E_USAGE, "unknown option %.60s; 'kac %s --help' lists them", arg, command->name);
}

/* Reads the option at argv[*i], with its value; *i ends on the last word used. */
static kac_status read_option(arg_item *item, const kac_cli_command *command, int argc, char **argv, int *i) {
    const char *arg = argv[*i];
    const bool is_long = arg[1] == '-';
    const char *name = arg + 2;
    const size_t n = is_long ? strcspn(name, "=") : 0;
    const char *attached = is_long ? (name[n] == '=' ? name + n + 1 : NULL) : (arg[2] == '\0' ? NULL : arg + 2);
    const kac_option_spec *spec = is_long ? find_spec(command, name, n, 0) : find_spec(command, NULL, 0, arg[1]);
    if (spec == NULL && is_long && strncmp(name, "no-", 3) == 0 && attached == NULL) {
        spec = find_spec(command, name + 3, n - 3, 0);
        if (spec != NULL && spec->type == KAC_OPT_BOOL) {
            *item = (arg_item){spec, "false"};
            return KAC_OK;
        }
        spec = NULL;
    }
    if (spec == NULL) return unknown_option(command, arg);
    if (spec->type == KAC_OPT_BOOL) {
        if (!is_long && attached != NULL) return unknown_option(command, arg);
        *item = (arg_item){spec, attached == NULL ? "true" : attached};
        return KAC_OK;
    }
    if (attached == NULL && *i + 1 >= argc)
        return KAC_FAIL(KAC_E_USAGE, "--%s needs a value (%s)", spec->name, spec->meta == NULL ? "text" : spec->meta);
    if (attached == NULL) attached = argv[++*i];
    if (!is_long && attached[0] == '=' && arg[2] == '=') attached++;
    *item = (arg_item){spec, attached};
    return KAC_OK;
}

static const char *last_value(const arg_item *items, int n, const char *name) {
    const char *value = NULL;
    for (int i = 0; i < n; i++)
        if (strcmp(items[i].spec->name, name) == 0) value = items[i].value;
    return value;
}

static kac_status find_method(kac_cli_method *out, const kac_cli_methods *methods, const char *name) {
    if (kac_cli_method_find(out, methods, name)) return KAC_OK;
    const char *names[64];
    int n = 0;
    kac_text all = {0};
    for (; n < KAC_COUNT_OF(names) - 1 && methods->at(out, n); n++) {
        kac_text_add(&all, "%s%s", n == 0 ? "" : ", ", out->name);
        names[n] = out->name;
    }
    names[n] = NULL;
    const char *nearest = kac_nearest(name, names);
    kac_fail(KAC_E_USAGE, "unknown %s '%.60s'; %s%s%s (there are %s)", methods->what, name,
             nearest ? "did you mean " : "see", nearest ? nearest : " --help", nearest ? "?" : "",
             all.s == NULL ? "none" : all.s);
    kac_text_free(&all);
    return KAC_E_USAGE;
}

static kac_status set_items(kac_cli *cli, const arg_item *items, int n, const char *method) {
    const kac_cli_methods *methods = cli->command->methods;
    for (int i = 0; i < n; i++) {
        const char *name = items[i].spec->name;
        if (!kac_options_has(cli->options, name)) {
            kac_text owners = {0};
            kac_cli_method m;
            for (int k = 0; methods->at(&m, k); k++)
                if (find_in(m.options, name, strlen(name), 0) != NULL)
                    kac_text_add(&owners, "%s%s", owners.n == 0 ? "" : "|", m.name);
            const kac_status s =
                KAC_FAIL(KAC_E_USAGE, "--%s is an option of --%s %s; this run has --%s %s", name, methods->option,
                         owners.s == NULL ? "another" : owners.s, methods->option, method);
            kac_text_free(&owners);
            return s;
        }
        KAC_TRY(kac_options_set(cli->options, name, items[i].value));
    }
    return KAC_OK;
}

/* Where options come from besides the flags: --config FILE, and with --resume what the run was started with. */
typedef struct arg_source {
    kac_json j;
    const cJSON *object, *only;
} arg_source;

static kac_status open_source(arg_source *source, const kac_cli *cli, const arg_item *items, int n) {
    const char *config = last_value(items, n, "config"), *resume = last_value(items, n, "resume"),
               *output = last_value(items, n, "output");
    *source = (arg_source){0};
    if (config != NULL && takes_config(cli->command)) {
        KAC_TRY(kac_json_load(&source->j, config));
        source->object = source->j.root;
    } else if (cli->command->methods != NULL && resume != NULL && strcmp(resume, "true") == 0) {
        if (output == NULL) return KAC_FAIL(KAC_E_USAGE, "--resume needs -o RUN: the folder of the run to go on with");
        char *path = kac_path_join(output, "run.json");
        if (path == NULL) return KAC_E_MEMORY;
        const bool here = kac_file_exists(path);
        const kac_status s =
            here ? kac_json_load(&source->j, path) : KAC_FAIL(KAC_E_USAGE, "%s holds no run to go on with", output);
        kac_free(path);
        KAC_TRY(s);
        source->object = cJSON_GetObjectItemCaseSensitive(source->j.root, "options");
        source->only = cJSON_GetObjectItemCaseSensitive(source->j.root, "given");
    }
    return KAC_OK;
}

static kac_status add_method(kac_cli *cli, const char **method, const arg_source *source, const arg_item *items,
                             int n) {
    const kac_cli_methods *methods = cli->command->methods;
    kac_cli_method m;
    const char *name = last_value(items, n, methods->option);
    if (name == NULL && source->object != NULL)
        KAC_TRY(kac_json_text(&source->j, source->object, methods->option, &name));
    if (name == NULL) name = find_in(cli->command->options, methods->option, strlen(methods->option), 0)->value;
    KAC_TRY(find_method(&m, methods, name));
    *method = m.name;
    if (methods->shared != NULL) KAC_TRY(kac_options_add(cli->options, methods->shared));
    return kac_options_add(cli->options, m.options);
}

/* The option tables, then flags and words, then the other source for what these have not given. */
static kac_status fill(kac_cli *cli, const arg_item *items, int n) {
    const kac_cli_command *command = cli->command;
    const char *method = "none";
    arg_source source;
    kac_status s = open_source(&source, cli, items, n);
    if (s == KAC_OK && (cli->options = kac_options_create(command->options)) == NULL) s = KAC_E_MEMORY;
    if (s == KAC_OK && command->methods != NULL) s = add_method(cli, &method, &source, items, n);
    if (s == KAC_OK) s = kac_options_add(cli->options, kac_cli_common_options(command));
    if (s == KAC_OK) s = set_items(cli, items, n, method);
    for (int i = 0; command->words_option != NULL && i < cli->n_words && s == KAC_OK; i++)
        s = kac_options_set(cli->options, command->words_option, cli->words[i]);
    if (s == KAC_OK && source.object != NULL) s = kac_options_from_json(cli->options, &source.j, source.object, source.only);
    kac_json_free(&source.j);
    if (s == KAC_OK && command->methods != NULL && command->methods->settle != NULL)
        s = command->methods->settle(cli->options, method);
    if (s == KAC_OK) cli->json = kac_options_bool(cli->options, "json");
    return s;
}

static kac_status check_words(const kac_cli *cli) {
    const kac_cli_command *c = cli->command;
    if (cli->n_words < c->min_words)
        return KAC_FAIL(KAC_E_USAGE, "usage: kac %s [options] %s", c->name, c->words_usage);
    if (c->max_words >= 0 && cli->n_words > c->max_words)
        return KAC_FAIL(KAC_E_USAGE, "'%.60s' is one word too many; usage: kac %s [options] %s",
                        cli->words[c->max_words], c->name, c->words_usage);
    return KAC_OK;
}

static kac_status parse(kac_cli *cli, arg_item *items, bool *help) {
    int n = 0;
    bool ended = false;
    for (int i = 2; i < cli->argc; i++) {
        const char *arg = cli->argv[i];
        if (ended || arg[0] != '-' || arg[1] == '\0') {
            cli->words[cli->n_words++] = arg;
        } else if (strcmp(arg, "--") == 0) {
            ended = true;
        } else {
            KAC_TRY(read_option(&items[n], cli->command, cli->argc, cli->argv, &i));
            const char *name = items[n].spec->name, *value = items[n].value;
            if (strcmp(name, "help") == 0 && strcmp(value, "true") == 0) {
                *help = true;
                return KAC_OK;
            }
            if (strcmp(name, "json") == 0) cli->json = strcmp(value, "true") == 0;
            n++;
        }
    }
    KAC_TRY(fill(cli, items, n));
    return check_words(cli);
}

kac_status kac_cli_parse(kac_cli *cli, const kac_cli_command *command, int argc, char **argv, bool *help) {
    *cli = (kac_cli){.command = command, .argv = argv, .argc = argc};
    *help = false;
    cli->words = kac_alloc((size_t)argc * sizeof *cli->words);
    arg_item *items = kac_alloc((size_t)argc * sizeof *items);
    const kac_status s = cli->words == NULL || items == NULL ? KAC_E_MEMORY : parse(cli, items, help);
    kac_free(items);
    return s;
}

void kac_cli_free(kac_cli *cli) {
    kac_options_destroy(cli->options);
    kac_free(cli->words);
}
