# Completion of secret-init for bash, made by "secret-init generate bash".

# readline breaks words at = and : too. Sets the words as they were typed, up to the cursor, and where each begins in COMP_WORDS.
_secret_init_words() {
    local line=${COMP_LINE:0:COMP_POINT} index gap word
    for ((index = 0; index <= COMP_CWORD; index++)); do
        gap=${line%%[![:space:]]*}
        line=${line#"$gap"}
        word=${COMP_WORDS[index]}
        ((index < COMP_CWORD)) || word=$line
        line=${line#"$word"}
        if [[ -n $gap ]] || ((index == 0)); then
            words+=("$word")
            starts+=("$index")
        else
            words[-1]+=$word
        fi
    done
}

# The long name of an option.
_secret_init_long() {
    case $1 in
@SHORTS@
        *) long=${1%%=*} ;;
    esac
}

# Reads what stands before the word at the cursor: the options given, one that waits for its value, the command, where the program is.
_secret_init_place() {
    local index word long
    for ((index = 1; index < last; index++)); do
        word=${words[index]}
        if [[ -n $flag ]]; then
            flag=
            continue
        fi
        case $word in
            --)
                program=$((index + 1))
                return
                ;;
            -*)
                _secret_init_long "$word"
                given+=" $long "
                case $word in
                    @VALUED@) flag=$long ;;
                esac
                ;;
            *)
                case "$verb:$word" in
                    @VERBS@) verb+=:$word ;;
                    *)
                        program=$index
                        return
                        ;;
                esac
                ;;
        esac
    done
}

_secret_init() {
    local words=() starts=() given= flag= verb= program= option long list=() runs_programs=yes
    _secret_init_words
    local last=$((${#words[@]} - 1))
    local current=${words[last]}
    _secret_init_place
    case $verb in
        @NO_PROGRAM@) runs_programs= ;;
    esac

    COMPREPLY=()
    if [[ -n $program ]]; then
        if [[ -z $runs_programs ]]; then
            :
        elif declare -F _command_offset >/dev/null; then
            _command_offset "${starts[program]}"
        elif ((program == last)); then
            mapfile -t COMPREPLY < <(compgen -c -- "$current")
        else
            compopt -o default
        fi
        return
    fi
    if [[ -z $flag && $current == --*=* ]]; then
        flag=${current%%=*}
        current=${current#*=}
    fi
    case $flag:$current in
        :-*)
            for option in @FLAGS@; do
                _secret_init_long "$option"
                case $long in
                    @REPEATABLE@) list+=("$option") ;;
                    *) [[ $given == *" $long "* ]] || list+=("$option") ;;
                esac
            done
            ;;
        :*)
            case $verb in
@NEXT@
            esac
            ;;
        @FILES@) compopt -o default ;;
        @DIRECTORIES@) compopt -o dirnames ;;
@CHOICES@
    esac
    mapfile -t COMPREPLY < <(compgen -W "${list[*]}" -- "$current")
    # A program may stand here without a -- before it, but is not to hide a command.
    if [[ -z $flag && -z ${COMPREPLY[*]} && -n $runs_programs && $current == [!-]* ]]; then
        mapfile -t COMPREPLY < <(compgen -c -- "$current")
    fi
}

complete -F _secret_init secret-init
