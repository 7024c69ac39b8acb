"""The command line: parse, call one function of `api` or `compose`, print.

Results go to stdout, everything else to stderr. No option takes a secret.
"""
