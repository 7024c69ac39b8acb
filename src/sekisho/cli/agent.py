"""`sekisho agent`: runs a site's agent until it is told to end.

SIGTERM, SIGINT: take nothing new, finish what is in hand, end. A second one: end now; what runs
goes on and is adopted by the next agent. SIGHUP, SIGUSR1: look at manifest and wishes at once.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Final, NoReturn

import anyio
import click
import structlog
from anyio.abc import TaskStatus

from sekisho.adapters.heap import share_heap
from sekisho.adapters.journal_directory import DirectoryJournal
from sekisho.adapters.logging_setup import set_up_logging
from sekisho.adapters.notify_systemd import ServiceManager
from sekisho.cli import exit as statuses
from sekisho.cli import output
from sekisho.cli.session import Session
from sekisho.cli.site_home import home_option, open_site
from sekisho.cli.words import Command, json_option
from sekisho.compose import site as compose
from sekisho.config.site import SiteFiles
from sekisho.site.agent import Agent
from sekisho.site.desk import together

_END: Final = frozenset({signal.SIGTERM, signal.SIGINT})
_LOOK: Final = frozenset({signal.SIGHUP, signal.SIGUSR1})
log = structlog.get_logger()


@click.command("agent", cls=Command)
@home_option
@click.option("--once", is_flag=True)
@click.option("--mint", metavar="URL")
@click.option("--mint-user", metavar="USER")
@click.option("--mint-site", metavar="NAME")
@json_option
@click.pass_obj
def agent(  # noqa: PLR0913 (one for each option)
    session: Session,
    *,
    home: Path,
    once: bool,
    mint: str | None,
    mint_user: str | None,
    mint_site: str | None,
) -> int:
    """Run this site's agent. It calls out to the broker and opens no port.

    With --mint it serves an old MInt broker, by the old protocol. With --once it does what can be
    done now and ends; exit status 75 says that jobs are still open.
    """
    way = None if mint is None else compose.MintWay(url=mint, submitter=mint_user, site=mint_site)
    return run_agent(session, open_site(home), once=once, way=way)


def run_agent(
    session: Session, files: SiteFiles, *, once: bool, way: compose.MintWay | None
) -> int:
    """Run the agent of the site ``files``; return the exit status."""
    set_up_logging(files.settings.log.level, files.settings.log.format)
    share_heap()
    if not once:
        anyio.run(_serve, files, session, way)
        return 0
    still_open = anyio.run(_once, files, way)
    if session.json:
        output.result_json(session, {"open": still_open})
    else:
        output.result(session, session.say("agent_once", open=still_open))
    return statuses.LATER if still_open else 0


async def _once(files: SiteFiles, way: compose.MintWay | None) -> int:
    async with compose.agent(files, mint=way) as the_agent:
        return await the_agent.once()


async def _serve(files: SiteFiles, session: Session, way: compose.MintWay | None) -> None:
    manager = ServiceManager()
    async with (
        compose.agent(files, alive=manager.alive, mint=way) as the_agent,
        together() as group,
    ):
        await group.start(_obey, the_agent, files, manager, session)
        url = way.url if way else files.settings.broker.url
        log.info("agent_started", broker=url, pid=os.getpid())
        manager.ready("serving")
        await the_agent.serve()
        group.cancel_scope.cancel()


async def _obey(
    the_agent: Agent,
    files: SiteFiles,
    manager: ServiceManager,
    session: Session,
    *,
    task_status: TaskStatus[None],
) -> None:
    """Act on signals for as long as the agent serves."""
    draining = False
    with anyio.open_signal_receiver(*_END, *_LOOK) as signals:
        task_status.started()
        async for number in signals:
            if number in _LOOK:
                the_agent.wake()
            elif draining:
                _end_now(session)
            else:
                draining = True
                manager.stopping()
                output.note(session, _waiting_for(files, session))
                the_agent.drain()


def _waiting_for(files: SiteFiles, session: Session) -> str:
    owed = [run.job for run in DirectoryJournal(files.state).runs() if not run.settled]
    if not owed:
        return session.say("agent_idle")
    return session.say("agent_waits", count=len(owed), jobs=", ".join(owed))


def _end_now(session: Session) -> NoReturn:
    """End without any clean-up: this must work whatever the rest of the process is doing."""
    output.note(session, session.say("agent_ends"))
    os._exit(statuses.LATER)
