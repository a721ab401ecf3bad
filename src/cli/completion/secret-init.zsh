#compdef secret-init
# Completion of secret-init for zsh, made by "secret-init generate zsh".

# What may stand where no option does: a command, its word, or a program.
_secret-init_word() {
  local -a next
  case $verb in
@NEXT@
  esac
  (( $#next )) && _describe -t commands 'command' next && return
  # A program may stand here without a -- before it, but is not to hide a command.
  [[ -n $runs_programs && -n $PREFIX ]] && _command_names -e
}

_secret-init() {
  local word flag verb runs_programs=yes
  integer index program

  # What stands before the word at the cursor: an option that waits for its value, the command, where the program is.
  for (( index = 2; index < CURRENT && ! program; index++ )); do
    word=$words[index]
    if [[ -n $flag ]]; then
      flag=
      continue
    fi
    case $word in
      --) program=index+1 ;;
      @VALUED@) flag=$word ;;
      -*) ;;
      *)
        case "$verb:$word" in
          @VERBS@) verb+=:$word ;;
          *) program=index ;;
        esac
        ;;
    esac
  done

  case $verb in
    @NO_PROGRAM@) runs_programs= ;;
  esac

  if (( program )); then
    [[ -n $runs_programs ]] || return 1
    words=("${(@)words[program,-1]}")
    (( CURRENT -= program - 1 ))
    _normal -p secret-init
    return
  fi

  _arguments -s \
@FLAGS@
    '*: :_secret-init_word'
}

if [[ $funcstack[1] == _secret-init ]]; then
  _secret-init "$@"
else
  compdef _secret-init secret-init
fi
