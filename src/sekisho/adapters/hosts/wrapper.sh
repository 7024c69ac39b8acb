# Run one command once, and leave a record of its end that can be believed.
#
#   sh wrapper.sh CONTROL_DIR TOKEN MAX_PROCESSES [BOOTED] -- ARGV...
#
# MAX_PROCESSES: a number or -. BOOTED: when this machine was started, in 1/100 s since 1970, from
# whoever knows it; without it a program is asked for the time.
#
# 1. `mkdir CONTROL_DIR/latch` comes first. Whoever finds it there leaves with 75: nothing starts twice.
# 2. The latch is on the disk before the command starts: a power cut cannot undo it.
# 3. The exit record appears, by rename, only after the command and everything that it left behind
#    are dead. The launcher made this shell a child subreaper, so whatever is orphaned below it
#    becomes its child, however it forked.
# 4. ARGV runs with this shell's environment as it was given. Names that a shell keeps for itself,
#    and all that begin with sekisho_, are refused before (see sekisho.site.scheduler).
# 5. No text of a user is interpreted: it is only ever "$@".
# 6. Every program that is started here is a millisecond of each job: what a shell can do it does.
#
# Signals to the group end the command, never this shell: a caught signal is the default again in
# what it starts, and waits until the foreground command is over.
trap : HUP INT QUIT ALRM TERM USR1 USR2 PIPE XCPU XFSZ VTALRM PROF
umask 077
sekisho_control=$1
sekisho_token=$2
sekisho_max_processes=$3
sekisho_booted=
[ "$4" = -- ] || { sekisho_booted=$4 && shift; }
shift 4

sekisho_tool() { # a standard program, undisturbed by a library path that is meant for the command
    LD_PRELOAD= LD_LIBRARY_PATH= LC_ALL=C command -p "$@" 2>/dev/null
}

sekisho_start_ticks() { # $1: the line of /proc/PID/stat; counted behind the name, which may hold blanks
    set -- ${1##*) }
    sekisho_ticks=${20}
}

sekisho_uptime() { # how long this machine has been up, in 1/100 s: durations need no program
    read -r sekisho_up _ </proc/uptime && sekisho_up=$((${sekisho_up%.*} * 100 + 1${sekisho_up#*.} - 100))
}

sekisho_now() { # needs sekisho_up of this moment
    if [ -n "$sekisho_booted" ]; then
        sekisho_ended=$(((sekisho_booted + sekisho_up) / 100))
    else
        sekisho_ended=$(sekisho_tool date +%s)
    fi
}

sekisho_children() { # the processes whose parent is this shell, dead ones not yet waited for included
    sekisho_pids=
    if [ -r "/proc/$$/task/$$/children" ]; then
        read -r sekisho_pids <"/proc/$$/task/$$/children"
        return
    fi
    for sekisho_status in /proc/[0-9]*/status; do
        while read -r sekisho_key sekisho_value; do
            if [ "$sekisho_key" = PPid: ]; then
                [ "$sekisho_value" != $$ ] && break
                sekisho_pid=${sekisho_status#/proc/}
                sekisho_pids="$sekisho_pids ${sekisho_pid%/status}"
                break
            fi
        done <"$sekisho_status"
    done 2>/dev/null
}

sekisho_end_orphans() {
    sekisho_round=0
    while
        sekisho_children
        [ -n "$sekisho_pids" ]
    do
        for sekisho_pid in $sekisho_pids; do
            kill -s KILL "$sekisho_pid" 2>/dev/null
        done
        (:) # a shell collects its dead only while it waits for one
        sekisho_round=$((sekisho_round + 1))
        [ "$sekisho_round" -gt 200 ] && sekisho_tool sleep 1 # stuck in the kernel, or not ours to kill
    done
}

sekisho_not_started() { # a fault before the command: give the latch back, so that it can be tried again
    sekisho_tool rm -rf "$sekisho_control/exit.new" "$sekisho_control/stdout" \
        "$sekisho_control/stderr" "$sekisho_control/latch" # in this order: the latch goes last
    exit 74
}

sekisho_write_record() {
    if [ -z "$sekisho_named" ]; then
        sekisho_uptime && sekisho_now || return 1
        sekisho_started=$((sekisho_ended - (sekisho_up - sekisho_began) / 100))
        sekisho_words="exit $sekisho_token $sekisho_code $sekisho_started $sekisho_ended ."
        # In the place of what was synced before the start, and as long: after a power cut there is
        # the one or the other, whatever its name is by then.
        printf '%-199s\n' "$sekisho_words" 1<>"$sekisho_control/exit.new" || return 1
        sekisho_tool mv -f "$sekisho_control/exit.new" "$sekisho_control/exit" || return 1
        sekisho_named=yes
    fi
    sekisho_tool sync "$sekisho_control/exit" "$sekisho_control"
}

if ! sekisho_tool mkdir "$sekisho_control/latch"; then
    [ -e "$sekisho_control/latch" ] || [ -h "$sekisho_control/latch" ] || exit 74 # no room for it
    exit 75
fi

read -r sekisho_boot </proc/sys/kernel/random/boot_id
read -r sekisho_host </proc/sys/kernel/hostname
read -r sekisho_stat </proc/$$/stat
sekisho_start_ticks "$sekisho_stat"
sekisho_uptime || sekisho_not_started
sekisho_began=$sekisho_up
# The room for the exit record is taken now: the command may fill the disk.
printf '%-199s\n' reserved >"$sekisho_control/exit.new" || sekisho_not_started
printf 'start %s %s %s %s %s %s .\n' "$sekisho_token" "$$" "$sekisho_ticks" "$sekisho_boot" \
    "$((sekisho_began / 100))" "$sekisho_host" >"$sekisho_control/latch/start" || sekisho_not_started
true >>"$sekisho_control/stdout" 2>>"$sekisho_control/stderr" || sekisho_not_started
sekisho_tool sync "$sekisho_control/exit.new" "$sekisho_control/latch/start" \
    "$sekisho_control/latch" "$sekisho_control" || sekisho_not_started

(
    if [ "$sekisho_max_processes" != - ]; then # only here: this shell must be able to fork at the end
        if [ -n "${BASH_VERSION-}" ]; then
            ulimit -u "$sekisho_max_processes"
        else
            ulimit -p "$sekisho_max_processes"
        fi || exit 74
    fi
    unset PWD OLDPWD SHLVL _ # what shells add to an environment
    exec "$@"
) </dev/null >>"$sekisho_control/stdout" 2>>"$sekisho_control/stderr"
sekisho_code=$?

sekisho_end_orphans
sekisho_named=
sekisho_tries=0
until sekisho_write_record || [ "$sekisho_tries" -ge 50 ]; do # a signal for the command hit a tool
    sekisho_tries=$((sekisho_tries + 1))
done
