"""Where commands run: the only package that starts processes.

`wrapper.sh` runs one command once and records its end; `spawner.py` is the small process that
starts wrappers; `spawn_local` speaks to it; `process_tree` finds and stops what a command started.
"""
