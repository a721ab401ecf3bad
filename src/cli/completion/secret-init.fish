# Completion of secret-init for fish, made by "secret-init generate fish".

# Reads what stands before the word at the cursor: a line for the command with its word, one for each option that was given, then "program" and the words of it.
function __secret_init_place
    set -l tokens (commandline -opc)
    set -l flag
    set -l verb
    set -l given
    set -l program
    set -e tokens[1]
    while set -q tokens[1]
        set -l token $tokens[1]
        set -e tokens[1]
        if test -n "$flag"
            set -a given $flag
            set flag
            continue
        end
        switch $token
            case --
                set program program $tokens
                break
            case @VALUED@
                set flag $token
            case '-*'
                set -a given (string replace -r '=.*' '' -- $token)
            case '*'
                switch "$verb:$token"
                    case @VERBS@
                        set verb "$verb:$token"
                    case '*'
                        set program program $token $tokens
                        break
                end
        end
    end
    printf '%s\n' "verb$verb" given:$given $program
end

# Whether options can stand here, and none of these was given.
function __secret_init_lacks
    set -l place (__secret_init_place)
    if contains -- program $place
        return 1
    end
    for option in $argv
        if contains -- given:$option $place
            return 1
        end
    end
end

# Whether this is the command so far, and no program has begun.
function __secret_init_is
    set -l place (__secret_init_place)
    not contains -- program $place
    and test "$place[1]" = "verb$argv[1]"
end

# Completes the program as a command of its own.
function __secret_init_program
    set -l place (__secret_init_place)
    set -l current (commandline -ct)
    if contains -- "$place[1]" @NO_PROGRAM@
        return
    end
    if set -l at (contains -i -- program $place)
        complete -C (string join -- ' ' (string escape -- $place[(math $at + 1)..]) "$current")
    else if string match -qr '^[^-]' -- $current; and not string match -q -- "$current*" @COMMANDS@
        # A program may stand here without a -- before it, but is not to hide a command.
        complete -C "$current"
    end
end

complete -c secret-init -f -a '(__secret_init_program)'
@NEXT@
@FLAGS@
