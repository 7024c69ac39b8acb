"""A real Slurm for tests: the demo's own, which anybody may start as root."""

from examples.demo.slurm import Slurm, a_slurm

__all__ = ["Slurm", "a_slurm"]
