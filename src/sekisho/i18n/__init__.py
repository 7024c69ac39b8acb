"""Sentences by code, in Japanese and English. Whoever reads makes the sentence, in their language.

`en.toml` and `ja.toml` hold a table for each error code (`what` happened, what to do `next`), and
the tables `help`, `say`, `state` and `exit` of the command line. A test compares them with the
source.
"""
