"""A real Slurm for tests: the demo's own, which anybody may start."""

from examples.demo.slurm import Slurm, a_slurm

__all__ = ["Slurm", "a_slurm"]
