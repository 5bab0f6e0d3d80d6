#!/usr/bin/env bash
# The completions and the manual page in tools/ are what the option tables say now.
set -euo pipefail
fail=0
for pair in bash:tools/completion/kac.bash zsh:tools/completion/_kac man:tools/man/kac.1; do
    if ! "$KAC_BINARY" completion "${pair%%:*}" | cmp -s - "${pair#*:}"; then
        echo "${pair#*:} is out of date: kac completion ${pair%%:*} > ${pair#*:}"
        fail=1
    fi
done
bash -n tools/completion/kac.bash
if command -v zsh >/dev/null; then zsh -n tools/completion/_kac; fi
if command -v groff >/dev/null; then
    said=$(groff -Kutf8 -man -ww -z tools/man/kac.1 2>&1 | grep -v 'cannot select font' || true)
    if [ -n "$said" ]; then echo "$said"; fail=1; fi
fi
# it completes
answer=$(bash -c '. tools/completion/kac.bash; COMP_WORDS=(kac rep); COMP_CWORD=1; _kac; echo "${COMPREPLY[*]}"')
[ "$answer" = report ] || { echo "'kac rep' completes to '$answer'"; fail=1; }
answer=$(bash -c '. tools/completion/kac.bash; COMP_WORDS=(kac info --js); COMP_CWORD=2; _kac; echo "${COMPREPLY[*]}"')
[ "$answer" = --json ] || { echo "'kac info --js' completes to '$answer'"; fail=1; }
exit $fail
