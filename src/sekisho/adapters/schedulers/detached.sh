# Commands of jobs on a host without a batch system, which outlive the connection that starts them.
#
#   sh -c THIS sekisho start CONTROL WORK      begin the script that is in CONTROL
#   sh -c THIS sekisho look WORK...            HOST BOOT, then every WORK of which something runs;
#                                              then how the search ended: killed it may have missed
#   sh -c THIS sekisho stop SIGNAL CONTROL WORK
#
# A process is the job's when its first environment says so (CALC_DIR): the wrapper, and what it
# starts. The wrapper itself is spared by `stop`: it writes the record of the end.
verb=$1
shift

running() { # the processes of $1, as files below /proc
    grep -lszxF "CALC_DIR=$1" /proc/[0-9]*/environ
}

case $verb in
start)
    cd -- "$1" || exit 1
    CALC_DIR=$2
    export CALC_DIR
    if setsid -f true 2>/dev/null; then
        setsid -f sh script </dev/null >/dev/null 2>&1
    elif command -v setsid >/dev/null 2>&1; then
        setsid sh script </dev/null >/dev/null 2>&1 &
    else
        set -m
        nohup sh script </dev/null >/dev/null 2>&1 &
    fi
    ;;
look)
    [ -r /proc/$$/environ ] || exit 1
    read -r host </proc/sys/kernel/hostname
    read -r boot </proc/sys/kernel/random/boot_id
    printf '%s %s\n' "$host" "$boot"
    first=$1
    [ $# -gt 0 ] || exit 0
    for work; do
        set -- "$@" -e "CALC_DIR=$work"
    done
    while [ "$1" != -e ] || [ "$2" != "CALC_DIR=$first" ]; do
        shift
    done
    {
        grep -hszxF "$@" /proc/[0-9]*/environ
        printf 'grep %s\0' "$?" # 2: of others' processes nothing is told
    } | tr '\0' '\n' | sort -u
    printf 'end\n'
    ;;
stop)
    read -r _ _ wrapper _ 2>/dev/null <"$2/latch/start"
    running "$3" | while IFS=/ read -r _ _ pid _; do
        [ "$pid" = "${wrapper:-none}" ] || kill -s "$1" "$pid" 2>/dev/null
    done
    ;;
esac
exit 0
