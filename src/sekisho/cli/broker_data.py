"""`sekisho broker backup|scrub`: all that a broker keeps, copied and verified."""

from __future__ import annotations

from pathlib import Path

import click

from sekisho.adapters.logging_setup import silence
from sekisho.broker.scrub import Damage, Scrub
from sekisho.cli.broker_home import config_option, open_desk
from sekisho.cli.broker_output import show, show_record
from sekisho.cli.session import Session
from sekisho.cli.words import Command, json_option
from sekisho.compose import broker as compose
from sekisho.config.broker import load_broker
from sekisho.domain.errors import IntegrityError


@click.command(cls=Command)
@click.argument("destination", type=click.Path(path_type=Path))
@config_option
@json_option
@click.pass_obj
def backup(session: Session, destination: Path, config: Path) -> None:
    """Copy database and chunks to the new directory DESTINATION, and verify the copy."""
    silence()
    show_record(session, compose.back_up(load_broker(config), destination))


@click.command(cls=Command)
@config_option
@json_option
@click.pass_obj
def scrub(session: Session, config: Path) -> int:
    """Read and verify every stored chunk; name what is damaged, and the jobs that need it."""
    with open_desk(config) as desk:
        pass_ = Scrub(desk.ports.store, desk.ports.blobs)
        damage = []
        for one in pass_.run(desk.ports.clock.now()):
            damage.append(one)
            if not session.json:
                show(_words(session, one))
    fault = IntegrityError("store.chunks_damaged", count=len(damage)) if damage else None
    row = {"chunks": pass_.chunks, "chunk_bytes": pass_.bytes, "damage": len(damage)}
    if session.json:  # one object tells all of it
        code = {"code": fault.code} if fault else {}
        show_record(session, row | {"damage": damage} | code)
        return fault.exit_status if fault else 0
    show_record(session, row)
    if fault:
        raise fault
    return 0


def _words(session: Session, damage: Damage) -> str:
    what = session.say(f"chunk_{damage.what}")
    jobs = ", ".join(damage.jobs) or session.say("no_job")
    place = {"site": damage.site, "submitter": damage.submitter}
    return session.say("chunk_damage", what=what, digest=damage.digest, jobs=jobs, **place)
