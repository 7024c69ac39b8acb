# The far end of a bare site. Constant: run by `sh -c` for one verb, it leaves nothing installed.
#
#   sh -c THIS sekisho VERB BASE ID ...
#
# 1. Everything of a job is in BASE/ID, a directory of our own with mode 0700:
#      record    what the submitter asked for (makes the job durable)
#      ready     all inputs are there; `inputs`, if there are any, is a little older than any output
#      control/  latch, exit record and printed text of wrapper.sh; `cancel` when asked to;
#                `roomless` when the last start found no room, until somebody was told
#      work/     the program's directory; below `.sekisho-coming`, until the start, an input while it comes
# 2. `control/latch` is made once: by the wrapper, a directory, which then starts the program, or by
#    `cancel`, a link to nothing, and then nothing ever starts. Absence proves nothing.
# 3. A process is the job's when its first environment says so (CALC_DIR). There is no subreaper
#    here: one that wiped its own environment and left the process group is not found.
# 4. No text of a user is interpreted: it is only ever an argument or a file's content.
# 5. A file system that is not mounted takes a job's directory away, not the job: `away`, not `absent`.
#    ID may be ID@NUMBER: the base's directory had that number (its inode) when the job was made.
# 6. An answer of more than a word ends with `end`: what was killed over there may have said less.
#    Nor is the silence of a tool that a signal has ended an answer: it is asked again.
umask 077
verb=$1
base=$2
case $base in /*) ;; *) base=$PWD/$base ;; esac # `finish` is called elsewhere
id=${3%%@*}
dir=$base/$id
work=
coming=work/.sekisho-coming

fail() {
    printf 'fault %s\n' "$1"
    exit 0
}

number() { # of the base's directory, $1: with another one in its place, it is another file system
    find "$1" -prune -printf %i 2>/dev/null
}

lacking() { # $1: ID@NUMBER. Why there is no such job: what could not have held it does not tell
    case $1 in *@*) known=${1##*@} ;; *) known= ;; esac
    [ -d "$base" ] && [ -w "$base" ] && { [ -z "$known" ] || [ "$known" = "$(number "$base/.")" ]; } &&
        printf absent || printf away
}

unmade() { # why nothing can be made in base: for want of room, or of the right to
    place=$base
    until [ -e "${place:=/}" ] || [ -h "$place" ]; do place=${place%/*}; done
    [ -d "$place" ] && [ -w "$place" ] && [ -x "$place" ] && printf storage || printf closed
}

enter() { # $1: ID@NUMBER. Be in the job's directory, if it is ours
    [ -d "$dir" ] || fail "$(lacking "$1")"
    { [ ! -h "$dir" ] && [ -O "$dir" ]; } || fail foreign
    cd -- "$dir" 2>/dev/null || fail absent
    work=$(pwd -P)/work
}

marked() { # the processes of the job that are alive
    found=$(grep -lszxF "CALC_DIR=$work" /proc/[0-9]*/environ)
    [ "$?" -lt 128 ] || return 1
    for pid in $found; do
        pid=${pid#/proc/} pid=${pid%/environ}
        read -r stat <"/proc/$pid/stat" || continue
        set -- ${stat##*) }
        [ "$1" != Z ] && printf '%s\n' "$pid"
    done 2>/dev/null
    return 0
}

wrapper_alive() { # 0: yes, or on another host of this name, where it cannot be seen
    read -r _ _ pid ticks boot _ host _ <control/latch/start || return 1
    read -r here </proc/sys/kernel/hostname
    [ "$host" != "$here" ] && return 0
    read -r now </proc/sys/kernel/random/boot_id
    [ "$boot" != "$now" ] && return 1
    read -r stat 2>/dev/null <"/proc/$pid/stat" || return 1
    set -- ${stat##*) }
    [ "${20}" = "$ticks" ] && [ "$1" != Z ]
} 2>/dev/null

kill_all() { # $1: signal. The wrapper and its group leader stay, to write the record
    read -r _ _ wrapper _ <control/latch/start 2>/dev/null
    read -r stat <"/proc/$wrapper/stat" 2>/dev/null
    set -- "$1" ${stat##*) }
    pids=$(marked) || return 1
    for pid in $pids; do
        case $pid in "${wrapper:-none}" | "${4:-none}") ;; *) kill -s "$1" "$pid" 2>/dev/null ;; esac
    done
    return 0
}

alone() { # run the rest in a session of its own that outlives the line
    if command -v setsid >/dev/null; then
        setsid "$@" </dev/null >/dev/null 2>&1 &
    else
        set -m
        nohup "$@" </dev/null >/dev/null 2>&1 &
        set +m
    fi
}

mark_inputs() { # a file of the program is told from an input: it is newer than `inputs`
    found=$(find work -prune ! -empty) || exit 1
    [ -n "$found" ] || return 0
    true >inputs || fail storage
    round=0
    while # until the file system's clock has moved on
        rm -f control/probe
        true >control/probe || fail storage
        [ -z "$(find control/probe -cnewer inputs)" ] && [ "$round" -lt 300 ]
    do
        sleep 0.01 2>/dev/null || sleep 1
        round=$((round + 1))
    done
}

settle() { # let a transfer that was cut off keep what it had; what a killed one left is nothing
    round=0
    while [ -n "$(ls -A "$coming" 2>/dev/null)" ] && [ "$round" -lt 50 ]; do
        sleep 0.1 2>/dev/null || sleep 1
        round=$((round + 1))
    done
    rm -rf "$coming"
    mkdir "$coming" || fail storage
}

launch() { # $1: token, $2: wrapper, then the program
    # what the wrapper cannot write it cannot tell: it would only leave
    { printf '%-512s\n' room >control/room && true >control/room; } 2>/dev/null || fail storage
    token=$1
    wrapper=$2
    shift 2
    CALC_DIR=$work
    export CALC_DIR
    cd work || fail absent
    # The leader of the group ends what is left of it, itself included, after the wrapper; one that
    # gave the latch back found no room, and a new name needs some.
    alone sh -c 'trap : HUP INT QUIT TERM; sh -c "$@"
        [ "$?" -ne 74 ] || mv -f ../control/room ../control/roomless; kill -s KILL 0' leader "$wrapper" \
        wrapper.sh ../control "$token" - -- sh -c 'exec 2>&1; exec "$@"' program "$@"
    cd ..
}

recorded() { # the exit record, into $words; a power cut may have kept its name, and nothing else
    [ -f control/exit ] && read -r words <control/exit || return 1
    case $words in 'exit '*' .') ;; *) return 1 ;; esac
} 2>/dev/null

state() { # one word, and the exit record's when there is one
    if recorded; then
        printf 'exit %s' "$words"
    elif [ -h control/latch ]; then
        printf cancelled
    elif [ -d control/latch ]; then
        if [ ! -e control/latch/start ]; then
            # between two acts of the wrapper; after two minutes it will not do the second
            [ -n "$(find control/latch -prune -mmin +2)" ] && printf gone || printf starting
        elif wrapper_alive; then
            printf running
        elif recorded; then
            printf starting # it ended while we looked: look again
        else
            printf gone
        fi
    elif [ -e control/exit ]; then
        printf gone
    elif [ -e ready ]; then
        printf ready
    elif [ -f record ]; then
        printf making
    else
        printf absent
    fi
}

listed() { # what is not newer than `inputs` came in and was left alone
    if [ -e inputs ]; then
        find work -type f -cnewer inputs -printf '%s %b %P\0'
    else
        find work -type f -printf '%s %b %P\0'
    fi
}

case $verb in
make) # SIZE; stdin: the record, whole only with so many bytes: a cut line looks like its end.
    #   With TOKEN WRAPPER ARGV... there are no inputs: start as well
    made=
    size=$4
    case $3 in # made before, elsewhere: here it would start again
    *@*) [ -d "$dir" ] || [ "$(lacking "$3")" = absent ] || fail away ;;
    esac
    mkdir -p -- "$base" 2>/dev/null
    mkdir -m 0700 -- "$dir" 2>/dev/null || [ -e "$dir" ] || fail "$(unmade)"
    enter "$3"
    if [ ! -f record ]; then
        mkdir -p control work || fail storage
        [ "$#" -gt 4 ] || mkdir -p "$coming" || fail storage
        cat >"record.$$" || fail storage
        [ "$(wc -c <"record.$$")" -eq "$size" ] || { rm -f "record.$$" && fail torn; }
        sync "record.$$" 2>/dev/null || sync
        if ln "record.$$" record 2>/dev/null; then # the first one stays
            made=yes
        elif [ ! -e record ]; then # no links here
            mv "record.$$" record && made=yes
        fi
        rm -f "record.$$"
        sync . 2>/dev/null || sync
        [ -s record ] || fail storage
    fi
    if [ -n "$made" ] && [ "$#" -gt 4 ]; then
        shift 4
        true >ready || fail storage
        launch "$@"
    elif [ -z "$made" ] && [ ! -e ready ]; then
        settle
    fi
    word=$(state)
    printf 'work %s\nbase %s\nstate %s\n' "$work" "$(number ..)" "${word%% *}"
    cat record && printf '\nend\n'
    ;;
settle)
    enter "$3"
    settle
    printf 'settled\n'
    ;;
record)
    enter "$3"
    [ -s record ] || fail absent
    word=$(state)
    printf 'work %s\nbase %s\nstate %s\n' "$work" "$(number ..)" "${word%% *}"
    cat record && printf '\nend\n'
    ;;
start) # TOKEN WRAPPER ARGV...
    enter "$3"
    shift 3
    [ -s record ] || fail absent
    if [ ! -e ready ]; then
        rmdir "$coming" 2>/dev/null
        mark_inputs
        true >ready || fail storage
        sync ready 2>/dev/null || sync
    fi
    if [ ! -d control/latch ] && [ ! -h control/latch ] && [ ! -e control/exit ]; then
        [ ! -e control/roomless ] || { rm -f control/roomless && fail storage; } # tell, then try again
        launch "$@"
    fi
    word=$(state)
    printf 'state %s\n' "${word%% *}"
    ;;
look) # ID... are in pairs: an id, and the word that was seen last; $2 seconds to wait
    left=$3
    shift 3
    pause=0.02
    end=
    while :; do
        fresh=
        lines=
        for pair in "$@"; do
            asked_id=${pair%%=*}
            id=${asked_id%%@*}
            word=$(
                if cd -- "$base/$id" 2>/dev/null && [ -O . ]; then state; else lacking "$asked_id"; fi
            )
            asked=0
            [ -e "$base/$id/control/cancel" ] && asked=1
            brief=${word%% *}
            [ "$brief" = starting ] && brief=running # for whoever waits it is the same
            [ "$brief" != "${pair#*=}" ] && fresh=yes
            lines="$lines$id $asked $word
"
        done
        now=$(date +%s)
        end=${end:-$((now + left))}
        [ -n "$fresh" ] || [ "$now" -ge "$end" ] && break
        sleep "$pause" 2>/dev/null || sleep 1
        case $pause in
        0.02) pause=0.04 ;; 0.04) pause=0.08 ;; 0.08) pause=0.15 ;; 0.15) pause=0.3 ;;
        0.3) pause=0.6 ;; 0.6) pause=1 ;; 1) pause=2 ;; *) pause=3 ;;
        esac
    done
    printf 'clock %s\n%send\n' "$now" "$lines"
    ;;
cancel)
    enter "$3"
    [ -e control/latch ] || ln -s cancelled control/latch 2>/dev/null # the first one stays
    if [ -h control/latch ]; then
        sync control 2>/dev/null || sync
    else
        [ -d control/latch ] && { true >control/cancel; } 2>/dev/null || fail storage
        kill_all TERM || exit 1
        alone sh -c "$4" sekisho finish "$base" "$id"
    fi
    printf 'asked\n'
    ;;
finish) # some seconds after `cancel`: no more asking
    enter "$3"
    round=0
    while ! recorded && [ "$round" -lt 120 ]; do
        sleep 1
        round=$((round + 1))
        [ "$round" -ge 5 ] && kill_all KILL
        [ -e control/latch/start ] && ! wrapper_alive && break
    done
    ;;
left) # what the program left: its files as "SIZE BLOCKS NAME" and NUL, after a line that says where
    enter "$3"
    [ -f control/exit ] || fail running
    if [ ! -e control/swept ]; then
        kill_all KILL || exit 1
        true >control/swept
    fi
    log=$(wc -c <control/stdout 2>/dev/null) || [ "$?" -lt 128 ] || exit 1
    if [ -z "$log" ]; then
        [ ! -r control/stdout ] || exit 1 # what was said has not come
        log=0
    fi
    printf 'log %s\n' "$log"
    listed || { # the program has closed a folder
        find work -type d ! -perm -0700 -exec chmod u+rwx {} \;
        printf 'again\0'
        listed
    }
    printf 'end %s\0' "$?"
    ;;
tail) # the last bytes of what it printed
    enter "$3"
    tail -c "$4" control/stdout 2>/dev/null
    ;;
room) # can a job be made here, and what `df` says
    mkdir -p -- "$base" 2>/dev/null
    dir=$base/.sekisho-check-$$
    mkdir -m 0700 -- "$dir" 2>/dev/null || fail "$(unmade)"
    rmdir -- "$dir"
    df -Pk -- "$base" | tail -n 1
    printf 'end\n'
    ;;
clean) # $3: days. Ended jobs of ours that nobody will ask for any more; never what may still run.
    #   Each is gone at once: half of one is no result, and without its latch it would start again
    gone=$base/.sekisho-old-$(id -u)
    mkdir -m 0700 -- "$gone" 2>/dev/null
    { [ -d "$gone" ] && [ ! -h "$gone" ] && [ -O "$gone" ]; } || fail foreign
    for dir in "$base"/job_*; do
        [ -d "$dir" ] && [ ! -h "$dir" ] && [ -O "$dir" ] || continue
        if [ -f "$dir/control/exit" ]; then
            old=$(find "$dir/control/exit" -mtime "+$3")
        elif [ -e "$dir/control/latch/start" ]; then
            old=
        else
            old=$(find "$dir" -prune -mtime "+$3")
        fi
        [ -n "$old" ] && mv -- "$dir" "$gone/"
    done
    rm -rf -- "$gone"
    printf 'cleaned\n'
    ;;
esac
exit 0
