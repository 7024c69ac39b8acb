"""The rules of sekisho, as pure functions over frozen data.

Standard library only, no I/O, no clock: time and entropy come in as arguments.
"""
