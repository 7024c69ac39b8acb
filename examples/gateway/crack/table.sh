#!/bin/sh
# After the solver: one table of what its processors have left, in order, and complete.
set -eu
echo table >>steps.log

cat part.* | grep -v '^#' | sort -n | awk '
  BEGIN { print "crack_m,cycles" }
  { cycles += $3; printf "%s,%.0f\n", $2, cycles }' >life.csv
[ "$(wc -l <life.csv)" -eq $(($(wc -l <mesh.txt) + 1)) ]
