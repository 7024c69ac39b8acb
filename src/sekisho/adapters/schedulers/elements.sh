# Tell of each array, named by its directory and the count of its elements, what wrappers left:
#   at N LETTERS        one for each element: m missing, f fresh, r revoked, t taken
#   exit N RECORD       a line for each exit record that there is
# and `end`, when nothing is lacking.
sekisho_n=0
while [ $# -gt 1 ]; do
    (
        if [ -d "$1" ]; then
            cd -- "$1" || exit 1
        else
            cd / || exit 1 # where nothing is of what is looked for
        fi
        sekisho_records=
        for sekisho_any in ./[0-9]*/*; do # makes a client of a network disk look again
            case $sekisho_any in */exit) sekisho_records=yes ;; esac
        done
        sekisho_i=0
        sekisho_letters=
        while [ "$sekisho_i" -lt "$2" ]; do
            if [ -L "$sekisho_i/latch" ]; then
                sekisho_letter=r
            elif [ -e "$sekisho_i/latch" ] || [ -e "$sekisho_i/exit" ] || [ -e "$sekisho_i/stdout" ]; then
                sekisho_letter=t
            elif [ -d "$sekisho_i" ]; then
                sekisho_letter=f
            else
                sekisho_letter=m
            fi
            sekisho_letters=$sekisho_letters$sekisho_letter
            sekisho_i=$((sekisho_i + 1))
        done
        printf 'at %s %s\n' "$sekisho_n" "$sekisho_letters"
        [ -n "$sekisho_records" ] || exit 0
        # A record is short: what is longer is none, and is not read. Nor is what cannot be.
        sekisho_said=$(find ./[0-9]*/exit -prune -type f -size 1 -perm -0400 -exec \
            sed -n "s/ *\$//; s/^exit /exit $sekisho_n exit /p" {} +) || exit 1
        [ -z "$sekisho_said" ] || printf '%s\n' "$sekisho_said"
    ) || exit 1
    sekisho_n=$((sekisho_n + 1))
    shift 2
done
echo end
