#!/bin/sh
# A job of sekisho. This text is the same for every job: what is to run is in the file `launch`
# beside it, written by the agent. The rest of this text runs it once, and records its end.
if [ $# -eq 0 ]; then
    for sekisho_place in "${SLURM_SUBMIT_DIR-}" "${PBS_O_WORKDIR-}" "${SGE_O_WORKDIR-}" \
        "${PJM_O_WORKDIR-}" "$PWD"; do
        [ -n "$sekisho_place" ] && [ -f "$sekisho_place/launch" ] && [ -f "$sekisho_place/script" ] &&
            exec /bin/sh "$sekisho_place/launch"
    done
    exit 74
fi
