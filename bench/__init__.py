"""Benchmarks: `./dev bench NAME` runs one, prints a table, and with `--json` one object at the end.

Real processes, real TLS and real disks, all on this machine and all ended by their ids.
"""
