"""The whole story on one machine: a broker, a site with secrets, a workflow that never sees them.

`./dev demo` runs it. Every step is a command line that a person would type; who types it has a
module of their own (`operator`, `engineer`, `author`), and `proof` looks for what must not be.
"""
