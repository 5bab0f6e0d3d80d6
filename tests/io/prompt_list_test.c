/* Prompts from files of every kind, and what is refused. */
#include "check.h"
#include "io/prompt_list.h"
#include "util/temp.h"
#include <stdlib.h>

static const char *written(const char *name, const char *text) {
    return temp_write(name, text, strlen(text));
}

/* The file's prompts, joined by '|'. */
static void reads(const char *name, const char *text, const char *wanted) {
    kac_prompt_list l = {0};
    kac_text all = {0};
    CHECK_OK(kac_prompt_list_add_file(&l, written(name, text)));
    for (int i = 0; i < l.n; i++) kac_text_add(&all, "%s%s", i > 0 ? "|" : "", l.items[i]);
    CHECK_TEXT(all.s == NULL ? "" : all.s, wanted);
    kac_text_free(&all);
    kac_prompt_list_free(&l);
}

/* The same with "category/id:" before each. */
static void knows(const char *name, const char *text, const char *wanted) {
    kac_prompt_list l = {0};
    kac_text all = {0};
    CHECK_OK(kac_prompt_list_add_file(&l, written(name, text)));
    for (int i = 0; i < l.n; i++)
        kac_text_add(&all, "%s%s/%s:%s", i > 0 ? "|" : "", l.categories[i] == NULL ? "-" : l.categories[i],
                     l.ids[i] == NULL ? "-" : l.ids[i], l.items[i]);
    CHECK_TEXT(all.s == NULL ? "" : all.s, wanted);
    kac_text_free(&all);
    kac_prompt_list_free(&l);
}

static void refuses(const char *name, const char *text, kac_status status, const char *said) {
    kac_prompt_list l = {0};
    CHECK_FAILS(kac_prompt_list_add_file(&l, written(name, text)), status, said);
    CHECK(strstr(kac_error(), name) != NULL);
    kac_prompt_list_free(&l);
}

int main(void) {
    reads("a.txt", "a cat\r\n\n  \n# no\na {dog}\twith a tab", "a cat|a {dog}\twith a tab");
    reads("a.txt", "\xef\xbb\xbf# first\nb", "b");
    reads("a.tsv", "single\ta cat\nsingle\ta dog\n", "a cat|a dog");
    reads("a.tsv", "id\tPrompt\tnote\n1\ta cat\tx\n2\ta dog\ty\n", "a cat|a dog");
    reads("a.jsonl", "{\"prompt\": \"a cat\"}\n\n{\"text\": \"a dog\", \"n\": 1}\n\"a cow\"\n", "a cat|a dog|a cow");
    reads("a.json", "[\"a cat\", {\"caption\": \"a dog\"}]", "a cat|a dog");
    knows("a.txt", "a cat\n", "-/-:a cat");
    knows("a.tsv", "one\ta cat\ntwo\tx\ta dog\nalone\n", "one/-:a cat|two/-:a dog|-/-:alone");
    knows("a.tsv", "Prompt\tCategory\tChallenge\tNote\nbond\tAbstract\tBasic\tan idea\n", "Abstract/-:bond");
    knows("a.tsv", "id\ttag\tprompt\n7\tt\ta cat\n", "t/7:a cat");
    knows("a.jsonl", "{\"tag\": \"two\", \"include\": [{\"class\": \"cow\"}], \"prompt\": \"a cow\"}\n", "two/-:a cow");
    knows("a.json", "[{\"id\": \"5-7\", \"prompt\": \"a cat\"}, {\"id\": 12, \"category\": \"c\", \"text\": \"d\"}]",
          "-/5-7:a cat|c/12:d");
    refuses("b.txt", "", KAC_E_USAGE, "no prompt");
    refuses("b.txt", "# only this\n\n", KAC_E_USAGE, "no prompt");
    refuses("b.txt", "a\n\xff\n", KAC_E_USAGE, "line 2");
    refuses("b.tsv", "id\tprompt\n1\n", KAC_E_FORMAT, "line 2");
    refuses("b.tsv", "id\tprompt\n1\t \n", KAC_E_USAGE, "empty");
    refuses("b.json", "{\"prompt\": \"a cat\"}", KAC_E_FORMAT, "list");
    refuses("b.json", "[1]", KAC_E_FORMAT, "entry 1");
    refuses("b.json", "[]", KAC_E_USAGE, "no prompt");
    refuses("b.jsonl", "{\"prompt\": \"a\"}\n{\"p\n", KAC_E_FORMAT, "entry 2");
    kac_prompt_list l = {0};
    CHECK_FAILS(kac_prompt_list_add_file(&l, temp_dir()), KAC_E_IO, NULL);
    CHECK_FAILS(kac_prompt_list_add_file(&l, temp_write("b.txt", "a\0b", 3)), KAC_E_FORMAT, "0 byte");
    kac_prompt_list_free(&l);
    return check_done();
}
