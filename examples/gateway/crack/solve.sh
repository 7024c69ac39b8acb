#!/bin/sh
# The solver: solve.sh STRESS CPUS. Load cycles of each step of the mesh, a share for each processor.
# P. Paris, F. Erdogan, J. Basic Eng. 85 (1963) 528: da/dN = C dK^m, here with dK = S sqrt(pi a);
# S in MPa, a in m, dK in MPa sqrt(m). C and m are the site's own: material.txt, beside this file.
set -eu
stress=$1 cpus=$2
material=$(dirname "$0")/material.txt
echo solve >>steps.log

solve() {
  awk -v stress="$stress" -v cpus="$cpus" -v share="$1" '
    FILENAME == ARGV[1] { law[$1] = $2; print "#", $1, $2; next }
    $1 % cpus == share {
      range = stress * sqrt(3.14159265358979 * ($2 + $3) / 2)
      printf "%d %s %.9g\n", $1, $3, ($3 - $2) / (law["C"] * range ^ law["m"])
    }' "$material" mesh.txt >"part.$1"
}

share=0 running=
while [ "$share" -lt "$cpus" ]; do
  solve "$share" &
  running="$running $!"
  share=$((share + 1))
done
for process in $running; do
  wait "$process"
done
