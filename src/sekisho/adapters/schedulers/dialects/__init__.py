"""What each kind of batch system is told and what it answers: pure functions, one module each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sekisho.adapters.schedulers.dialect import Dialect
from sekisho.adapters.schedulers.dialects import pbs, pjsub, sge, slurm

DIALECTS: Final[Mapping[str, Dialect]] = {
    dialect.name: dialect for dialect in (slurm.SLURM, pbs.PBS, pbs.TORQUE, sge.SGE, pjsub.PJSUB)
}
