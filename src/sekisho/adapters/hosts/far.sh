# Directories of jobs on a computing host: `<base>/<job>/<attempt>/{work,control,before,after}`.
#
#   set -- VERB BASE ...; THIS            (through adapters.hosts.far; nothing is installed)
#
# 1. Every directory is ours alone (0700), and is entered only when it is: never through a link.
# 2. Nothing is changed or removed but below a base with our mark, in a directory named like a job:
#    the caller has checked the names, and they are checked here again, whoever the caller is.
# 3. POSIX shell and tools, nothing else. What this host cannot do is told, not guessed.
# 4. An answer is lines that begin with one word; the last is `end` or `fault WHY`.
umask 077
LC_ALL=C
export LC_ALL
mark=.sekisho-base

fault() {
    printf 'fault %s\n' "$1"
    exit 0
}

check_job() {
    case $1 in
    job_*[!0-9a-z]*) fault job ;;
    job_??????????????????????????) ;;
    *) fault job ;;
    esac
}

check_attempt() {
    case $1 in '' | *[!0-9]* | ?????*) fault attempt ;; esac
}

check_name() { # a file below the work directory
    case /$1/ in *//* | */./* | */../*) fault name ;; esac
}

enter() { # be in directory $1 of the current one, if it is ours and no link
    { [ -d "$1" ] && [ ! -h "$1" ] && [ -O "$1" ]; } || return 1
    here=$(pwd -P) || return 1
    CDPATH= cd -P -- "$1" 2>/dev/null || return 1
    [ "$(pwd -P)" = "${here%/}/${1#./}" ]
}

enter_base() { # be in the base, if it is what an earlier `prepare` marked; with `new`, mark it
    case $base in /*) ;; *) fault relative ;; esac
    [ "$1" = new ] && mkdir -- "$base" 2>/dev/null
    [ -e "$base" ] || fault ENOENT
    [ -d "$base" ] || fault ENOTDIR
    [ -O "$base" ] || fault owner
    case $(ls -ldL -- "$base") in
    d????-??-*) ;;
    *) fault owner ;;
    esac
    CDPATH= cd -P -- "$base" || fault EACCES
    top=$(pwd -P) || fault EACCES
    [ "$top" != / ] || fault root
    [ "$top" != "$(CDPATH= cd -P -- "${HOME:-/}" 2>/dev/null && pwd -P)" ] || fault home
    if [ "$1" = new ] && [ -z "$(ls -A)" ]; then
        true >"$mark" || fault full
    fi
    { [ -f "$mark" ] && [ ! -h "$mark" ] && [ -O "$mark" ]; } || fault unmarked
}

lasting() { # what is in these directories outlives a power cut, where the host can tell
    sync "$@" 2>/dev/null || sync
}

discard() { # take $1 away from the base, where we are, and remove all that was ever discarded
    [ "$(pwd -P)" = "$top" ] || fault lost
    check_job "${1%%/*}"
    case $1 in
    */*/control | */*/before | */*/after) check_attempt "$(printf '%s' "${1#*/}" | sed 's,/.*,,')" ;;
    */*) fault name ;;
    esac
    mkdir .trash 2>/dev/null
    moved=$(date +%s).$$
    (
        enter .trash || exit 1
        if [ -e "../$1" ] || [ -h "../$1" ]; then
            [ -h "../$1" ] || chmod u+rwx "../$1" 2>/dev/null
            mv -f -- "../$1" "$moved" || exit 1
        fi
        # never into another file system, never through a link
        find . -xdev -type d ! -perm -0700 -exec chmod u+rwx {} \;
        find . -xdev ! -type d -exec rm -f -- {} +
        find . -xdev -depth -type d ! -name . -exec rmdir -- {} +
        [ ! -e "$moved" ]
    ) 2>/dev/null
}

# Sizes are told without reading what is large: it may be all holes. `ls` may not tell a name.
counted=stat
stat -c %s%n / >/dev/null 2>&1 || counted=
by_ls='set -f; for file; do set -- $(ls -ldn "$file"); printf "%s%s\n" "$5" "$file"; done'

size_of() { # of the file $1, which begins with ./
    told=$(sh -c "$by_ls" sh "$1")
    printf '%d' "${told%%./*}"
}

free_kib() {
    df -Pk . | while read -r _ _ _ free _; do last=$free && printf '%s\n' "$last"; done | tail -n 1
}

verb=$1
base=$2
shift 2
case $verb in
look) ;;
*)
    check_job "$1"
    [ "$verb" = purge ] || check_attempt "$2"
    ;;
esac

case $verb in
prepare) # JOB ATTEMPT KIB: make an attempt's directories, when so much room is left
    enter_base new
    free=$(free_kib)
    case $free in '' | *[!0-9]*) ;; *) [ "$free" -ge "$3" ] || fault full ;; esac
    for name in "$1" "$2"; do
        mkdir "$name" 2>/dev/null
        enter "$name" || fault changed
    done
    for name in control control/[0-9]* before after; do # of a command, of an array's elements
        { [ -e "$name/latch" ] || [ -h "$name/latch" ]; } && fault started
    done
    CDPATH= cd -P -- "$top" || fault changed
    for name in control before after; do
        [ -z "$(ls -A "$1/$2/$name" 2>/dev/null)" ] || discard "$1/$2/$name" || fault changed
    done
    enter "$1" && enter "$2" || fault changed
    for name in work control before after; do
        mkdir "$name" 2>/dev/null
        { [ -d "$name" ] && [ ! -h "$name" ]; } || fault changed
        chmod 700 "$name"
    done
    lasting . .. ../..
    printf 'end\n'
    ;;
put) # JOB ATTEMPT NAME SIZE MODE; stdin: the file. For a host without rsync
    enter_base
    check_name "$3"
    enter "$1" && enter "$2" && enter work || fault changed
    name=$3
    while [ "$name" != "${name#*/}" ]; do
        mkdir "${name%%/*}" 2>/dev/null
        enter "${name%%/*}" || fault changed
        name=${name#*/}
    done
    cat >".part-$$" || fault full
    [ "$(size_of "./.part-$$")" = "$4" ] || fault short
    [ ! -d "$name" ] && chmod "$5" ".part-$$" && mv -f ".part-$$" "$name" || fault changed
    printf 'end\n'
    ;;
survey) # JOB ATTEMPT BYTES: names and sizes of plain files, and what is not plain, by find
    enter_base
    enter "$1" && enter "$2" && enter work && [ -r . ] || {
        printf 'root\n'
        exit 0
    }
    most=$3
    me=$(id -u)
    line='
'
    closed="-type d ! -name . ( ! -user $me -o ! -perm -0500 ) -prune"
    seen() { # never into a closed folder; a search that failed or was killed has missed something
        find . -xdev $closed -o "$@" || fault find
    }
    of() { # a name of several lines is told as `?`: it could be taken for lines of ours
        printf 'is %s\n' "$1"
        shift
        seen ! -name . ! -path "*$line*" "$@" -exec printf '%s\n' {} +
    }
    printf 'is name\n'
    seen -path "*$line*" -exec printf './?\n' \;
    printf 'is owner\n'
    find . -xdev $closed ! -user "$me" ! -path "*$line*" -exec printf '%s\n' {} + || fault find
    printf 'is unreadable\n'
    find . -xdev $closed -user "$me" ! -path "*$line*" -exec printf '%s\n' {} + || fault find
    of symlink -type l
    of special ! -type l ! -type d ! -type f
    of owner ! -type l ! -user "$me"
    of hard_link -type f ! -links 1
    of too_large -type f -size "+${most}c"
    of unreadable -type f ! -perm -0400
    printf 'is found\n'
    files() {
        seen -type f ! -path "*$line*" -links 1 -user "$me" ! -size "+${most}c" -perm -0400 "$@"
    }
    if [ -n "$counted" ]; then
        files -exec stat -c %s%n {} +
    else
        files ! -size +65536c -exec wc -c {} +
        files -size +65536c -exec sh -c "$by_ls" sh {} +
    fi
    printf 'end\n'
    ;;
copy) # JOB ATTEMPT NONCE; stdin: lines FOLDER SIZE NAME. A head, the bytes, and why not
    enter_base
    enter "$1" && enter "$2" || {
        printf 'root\n'
        exit 0
    }
    nonce=$3
    attempt=$(pwd -P)
    plain() { # $1 is still a plain file of ours with one name
        why=symlink
        [ ! -h "$1" ] || return 1
        why=gone
        [ -e "$1" ] || return 1
        why=special
        [ -f "$1" ] || return 1
        why=owner
        [ -O "$1" ] || return 1
        why=hard_link
        [ -n "$(find "$1" -prune -links 1)" ] || return 1
        why=unreadable
        [ -r "$1" ]
    }
    one() { # FOLDER SIZE NAME; the size of a log is the most that may leave of it
        why=changed
        check_name "$3"
        CDPATH= cd -P -- "$attempt" && enter "$1" || {
            printf 'root\n'
            exit 0
        }
        name=$3
        while [ "$name" != "${name#*/}" ]; do
            if [ -h "${name%%/*}" ]; then
                why=symlink
                return
            fi
            enter "${name%%/*}" || return
            name=${name#*/}
        done
        name=./$name
        if [ -d "$name" ] && [ ! -h "$name" ]; then return; fi
        plain "$name" || return
        size=$(size_of "$name")
        bit=0
        [ -x "$name" ] && bit=1
        if [ "$1" = control ]; then
            most=$(($2 + 1))
            [ "$size" -gt "$most" ] && size=$most
            printf '%s file %s 0\n' "$nonce" "$size"
            tail -c "$size" "$name"
        else
            why=changed
            [ "$size" -eq "$2" ] || return
            printf '%s file %s %s\n' "$nonce" "$size" "$bit"
            cat "$name"
        fi
        plain "$name" || return
        why=
    }
    while read -r folder size name; do
        one "$folder" "$size" "$name" </dev/null
        printf '%s done %s\n' "$nonce" "$why"
    done
    printf '%s end\n' "$nonce"
    ;;
purge) # JOB
    enter_base new
    discard "$1" || printf 'left\n'
    { [ -e "$1" ] || [ -h "$1" ]; } && printf 'left\n'
    printf 'end\n'
    ;;
look) # PYTHON...: what there is on this host
    enter_base new
    true >".probe-$$" && rm -f ".probe-$$" || fault full
    printf 'free %s\n' "$(free_kib)"
    printf 'clock %s\n' "$(date +%s)"
    printf 'shell %s\n' "$(readlink -f /proc/$$/exe 2>/dev/null || printf -)"
    printf 'rsync %s\n' "$(rsync --version 2>/dev/null | sed -n '1s/^rsync *version v*\([0-9.]*\).*/\1/p')"
    for python in "$@"; do
        if command -v "$python" >/dev/null 2>&1 &&
            "$python" -I -S -c 'import sys; sys.exit(sys.version_info < (3, 6))' 2>/dev/null; then
            printf 'python %s\n' "$(command -v "$python")"
            break
        fi
    done
    printf 'end\n'
    ;;
esac
