#!/bin/sh
# Before the solver: divide the growth of a crack into steps.
# crack.txt: first and last length in m. mesh.txt: number, begin and end of each step.
set -eu
echo mesh >>steps.log

awk 'NR == 1 {
  first = $1 + 0; last = $2 + 0; steps = 400
  if (!(0 < first && first < last)) exit 65
  ratio = exp(log(last / first) / steps)
  for (n = 1; n <= steps; n++)
    printf "%d %.9g %.9g\n", n, first * ratio ^ (n - 1), first * ratio ^ n
}' crack.txt >mesh.txt
[ -s mesh.txt ]
