# Tell of each directory named what wrappers have left there:  at N missing|fresh|revoked|taken
# and the records that there are, each one line:                start N ...   exit N ...
# Then `end`. A record that is there and cannot be read just now ends it all: it may be the truth.
sekisho_line_end='
'
sekisho_n=0
for sekisho_dir; do
    for sekisho_any in "$sekisho_dir"/*; do :; done # makes a client of a network disk look again
    sekisho_state=fresh
    for sekisho_name in latch exit.new exit stdout stderr; do
        if [ -e "$sekisho_dir/$sekisho_name" ] || [ -L "$sekisho_dir/$sekisho_name" ]; then
            sekisho_state=taken
        fi
    done
    [ -L "$sekisho_dir/latch" ] && sekisho_state=revoked
    [ -d "$sekisho_dir" ] || sekisho_state=missing
    echo "at $sekisho_n $sekisho_state"
    for sekisho_name in latch/start exit; do
        [ -f "$sekisho_dir/$sekisho_name" ] && [ ! -L "$sekisho_dir/$sekisho_name" ] || continue
        [ -r "$sekisho_dir/$sekisho_name" ] || continue
        sekisho_text=$(dd if="$sekisho_dir/$sekisho_name" bs=1024 count=1 2>/dev/null) || exit 1
        sekisho_text=${sekisho_text%%"$sekisho_line_end"*}
        printf '%s %s %s\n' "${sekisho_name#latch/}" "$sekisho_n" "$sekisho_text"
    done
    sekisho_n=$((sekisho_n + 1))
done
echo end
