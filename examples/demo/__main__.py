"""`python -m examples.demo`: exit status 0 only when every check held."""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from examples.demo import slurm
from examples.demo.gateway import GatewayStory
from examples.demo.host import missing_programs
from examples.demo.places import Places
from examples.demo.push import PushStory
from examples.demo.screen import Screen
from examples.demo.shell import DemoFault, Shell
from examples.demo.story import Story, Told
from sekisho.i18n.catalogue import LANGUAGES, language

#: How much of the servers' logs is shown when a step fails.
LOG_LINES = 6
LOGS = (
    "broker/broker.log",
    "site/agent.log",
    "site/sshd.log",
    "hpc/sshd.log",
    "site/state/push/carrier.log",
)
UNAVAILABLE = 69


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    line = argparse.ArgumentParser(
        prog="./dev demo",
        description="Run the whole story on this machine: a broker, a site, a computation.",
        allow_abbrev=False,
    )
    line.add_argument("--ssh", action="store_true", help="push mode: a throw-away sshd, no broker")
    line.add_argument("--slurm", action="store_true", help="the command through a throw-away Slurm")
    line.add_argument("--gateway", action="store_true", help="… on a host behind ssh and a Slurm")
    line.add_argument("--keep", type=Path, metavar="DIR", help="keep everything in the new DIR")
    line.add_argument("--solver", choices=("auto", "calculix", "scikit-fem"), default="auto")
    line.add_argument("--lang", choices=LANGUAGES, default=language(os.environ))
    line.add_argument("--json", action="store_true", help="print one JSON object; story on stderr")
    return line


def main() -> int:
    """Run the demo and return its exit status."""
    line = parser()
    arguments = line.parse_args()
    if arguments.gateway and (arguments.ssh or arguments.slurm):
        line.error("--gateway is a telling of its own")
    if arguments.keep is not None and arguments.keep.exists():
        line.error(f"{arguments.keep} exists")
    out = sys.stderr if arguments.json else sys.stdout
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    signal.signal(signal.SIGTERM, _interrupt)
    screen = Screen(out, arguments.lang)
    if lacking := _lacking(screen, arguments):
        screen.failure(lacking)
        return UNAVAILABLE
    begun = time.monotonic()
    told = None
    with _directory(arguments.keep) as root, _batch(arguments) as conf:
        title = "gateway_title" if arguments.gateway else "ssh_title" if arguments.ssh else "title"
        screen.title(title, place=root)
        hpc_port = _free_port() if arguments.gateway else None
        told = _tell(screen, Places(root, _free_port(), conf, hpc_port), arguments)
    seconds = time.monotonic() - begun
    ok = told is not None and screen.ok
    screen.title("good" if ok else "bad", seconds=seconds, checks=len(screen.checks))
    if arguments.keep is not None:
        screen.say("kept", place=arguments.keep.absolute())
    if arguments.json:
        print(json.dumps(_summary(screen, told, ok=ok, seconds=seconds), ensure_ascii=False))
    return 0 if ok else 1


def _lacking(screen: Screen, arguments: argparse.Namespace) -> str | None:
    """Return the sentence that names the programs which the telling needs and are not here."""
    if (arguments.ssh or arguments.gateway) and (lacking := missing_programs()):
        return screen.words("ssh_missing", programs=", ".join(lacking))
    if (arguments.slurm or arguments.gateway) and (lacking := slurm.missing_programs()):
        return screen.words("slurm_missing", programs=", ".join(lacking))
    return None


@contextmanager
def _batch(arguments: argparse.Namespace) -> Iterator[Path | None]:
    """Give the configuration of a Slurm, if one is wanted: it is the machine's, not the site's."""
    if not (arguments.slurm or arguments.gateway):
        yield None
        return
    with (
        tempfile.TemporaryDirectory(prefix="sekisho-slurm-") as base,
        slurm.a_slurm(Path(base) / "s") as running,
    ):
        yield running.conf


def _tell(screen: Screen, places: Places, arguments: argparse.Namespace) -> Told | None:
    shell = Shell(screen, arguments.lang)
    if places.slurm_conf is not None:
        shell.give(SLURM_CONF=str(places.slurm_conf))
    gateway = GatewayStory if arguments.gateway else Story
    story = PushStory if arguments.ssh else gateway
    try:
        return story(screen, shell, places).tell(arguments.solver)
    except DemoFault as fault:
        screen.failure(str(fault))
        for log in [places.root / name for name in LOGS]:
            if log.exists():
                screen.output([log.name, *log.read_text("utf-8").splitlines()[-LOG_LINES:]])
    except KeyboardInterrupt:
        screen.failure(screen.words("interrupted"))
    finally:
        shell.close()
    return None


@contextmanager
def _directory(keep: Path | None) -> Iterator[Path]:
    """Give the directory of the demo; one that nobody wants to keep is removed."""
    if keep is not None:
        keep.mkdir(mode=0o700, parents=True)
        yield keep.absolute()
        return
    with tempfile.TemporaryDirectory(prefix="sekisho-demo-") as made:
        yield Path(made)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    """End as Ctrl+C does: with the servers stopped and the directory removed."""
    raise KeyboardInterrupt


def _summary(screen: Screen, told: Told | None, *, ok: bool, seconds: float) -> dict[str, object]:
    checks = [{"name": c.name, "ok": c.ok, "seen": c.seen} for c in screen.checks]
    whole: dict[str, object] = {"ok": ok, "seconds": round(seconds, 3), "checks": checks}
    if told is not None:
        whole |= {
            "job": told.answer.job,
            "run_seconds": round(told.answer.seconds, 3),
            "solver": told.life.solver,
            "life_cycles": told.life.cycles,
        }
        if told.command_seconds is not None:
            whole["command_seconds"] = round(told.command_seconds, 3)
    return whole


if __name__ == "__main__":
    sys.exit(main())
