#!/bin/sh
# A workflow module's program (objectPath) that computes at a site, through sekisho.
# Called with the paths of its ports: --<port name> <path> ...   Edit the marked lines.
# Needs the `sekisho` command on PATH, set up with `sekisho client init`.
set -eu

# --- settings ------------------------------------------------------------------------------------
site=works
command=notched-specimen
# Output ports, each with the name of the file that comes back.
outputs='応力分布=stress_distribution.csv 応力図=stress.png 要約=summary.json'
# -------------------------------------------------------------------------------------------------

results=sekisho-results
count=$#
[ $((count % 2)) -eq 0 ] || { echo "usage: --<port> <path> ..." >&2; exit 64; }

# Turn the ports, two words each, into options of `sekisho run`, in place.
while [ "$count" -gt 0 ]; do
  port=$1 path=$2
  shift 2
  count=$((count - 2))
  case $port in
    # --- settings: input ports; then ports whose file holds one value ------------------------------
    --絞り)     set -- "$@" -i "reduction_of_area.txt=$path" ;;
    --引張強さ) set -- "$@" -i "tensile_strength.txt=$path" ;;
    --降伏応力) set -- "$@" -i "yield_strength.txt=$path" ;;
    --最大応力) read -r value <"$path" || [ -n "$value" ]
                set -- "$@" -p "max_stress=$value" ;;
    # -----------------------------------------------------------------------------------------------
    *) echo "unknown port: $port" >&2; exit 64 ;;
  esac
done
for output in $outputs; do
  set -- "$@" -o "${output#*=}"
done

# The job's id is kept in a file: a module that is started again finds its job.
status=0
sekisho run "$site" "$command" --into "$results" --id-file sekisho-job-id "$@" || status=$?
[ "$status" -eq 0 ] || exit "$status"

# Every output gets the name of its port.
for output in $outputs; do
  ln -f "$results/${output#*=}" "${output%%=*}" 2>/dev/null ||
    cp "$results/${output#*=}" "${output%%=*}"
done
