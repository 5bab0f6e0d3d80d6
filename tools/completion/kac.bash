# bash completion of kac, written by `kac completion bash`
_kac() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} words=
    COMPREPLY=()
    if [ "$COMP_CWORD" -eq 1 ]; then
        words="report info help --help --version"
        COMPREPLY=($(compgen -W "$words" -- "$cur"))
        return
    fi
    case "${COMP_WORDS[1]} $prev" in
    esac
    if [ -z "$words" ] && [[ $cur == -* ]]; then
        case ${COMP_WORDS[1]} in
        report) words=" --config --json --help" ;;
        info) words=" --config --json --help" ;;
        esac
    fi
    if [ -n "$words" ]; then
        COMPREPLY=($(compgen -W "$words" -- "$cur"))
    else
        COMPREPLY=($(compgen -f -- "$cur"))
    fi
}
complete -o filenames -F _kac kac
