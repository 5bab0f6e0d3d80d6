/* An outside program that is spoken to in lines: one goes in, one comes out, within a time limit.
 *
 *     kac_child c;
 *     KAC_TRY(kac_child_start(&c, "python3 score.py --fast"));
 *     KAC_TRY(kac_child_ask(&c, request, strlen(request), &answer, 60000));   // answer lives until the next call
 *     kac_child_stop(&c);
 *
 * The command is split into words like a shell does it ('…', "…", backslash), but nothing is expanded and no shell runs: what needs one
 * is written as sh -c '…'. The program leads a process group of its own, so that the terminal's Ctrl-C does not reach it and that all of
 * it can be ended; its standard error goes to ours, and its last line there into messages. No file of this process stays open in it. */
#ifndef KAC_CHILD_H
#define KAC_CHILD_H

#include "base.h"
#include <sys/types.h>

typedef struct kac_child {
    pid_t pid; /* 0: none */
    int in, out, err;
    kac_text read;  /* from its output */
    size_t n_used;  /* of `read`: the line given last and those before */
    char said[256]; /* its last line on standard error */
    size_t n_said;
    bool said_ended; /* the line is complete: the next byte starts another */
    char *command;
} kac_child;

/* KAC_E_USAGE: a quote is open, or no words; KAC_E_IO: it cannot be started. On failure there is nothing to stop. */
kac_status kac_child_start(kac_child *c, const char *command);

/* Writes the line (a newline is added; n 0: nothing) and waits for one, returned without its newline. Fails with KAC_E_IO and ends the program
 * when it ends by itself, says nothing in time, or says more than fits: the message names the command and what it said last. */
kac_status kac_child_ask(kac_child *c, const char *line, size_t n, char **answer, double timeout_ms);

/* Closes its input, gives it a moment to end by itself, then ends all of its group. A stopped or cleared one is fine. */
void kac_child_stop(kac_child *c);

/* The words of a command; a NULL-terminated list in one block, freed by kac_free. KAC_E_USAGE. */
kac_status kac_command_words(char ***out, const char *command);

#endif
