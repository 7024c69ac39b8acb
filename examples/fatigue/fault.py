"""What can go wrong in the computation, as values with an exit status.

Fault
├── BadInput       65   a file or an argument that cannot be used
└── Unsolved       70   the solver did not converge, or its result failed a check
"""

from __future__ import annotations


class Fault(Exception):
    """The computation cannot give a result that may be trusted."""

    code = "fault"
    exit_status = 70


class BadInput(Fault):
    """A property file, a secret file or an argument is missing, malformed or out of its range."""

    code = "bad_input"
    exit_status = 65


class Unsolved(Fault):
    """No equilibrium was found, or the result disagrees with its closed-form reference."""

    code = "unsolved"
    exit_status = 70
