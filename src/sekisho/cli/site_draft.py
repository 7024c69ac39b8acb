"""`sekisho site manifest-from`: a first manifest, of what an old installation ran.

The draft runs nothing until its owner has read it: it serves nobody unless users are named, and a
program without an absolute path is marked where it must be completed.
"""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import click

from sekisho.cli import output
from sekisho.cli.session import Session
from sekisho.cli.words import Command
from sekisho.config.load import read_text
from sekisho.config.manifest import parse_manifest
from sekisho.config.mint_ini import named, quoted, read_ini, site_name
from sekisho.domain.egress import STDERR_NAME, STDOUT_NAME
from sekisho.domain.errors import ConfigError, UsageError
from sekisho.domain.files import Pattern, RelPath

_MIB: Final = 1 << 20
#: What means something to a shell, and braces, which mean something to a manifest.
_SHELL: Final = re.compile(r"[|;&<>$`*?(){}\n]|(^|\s)~")
_ROOM: Final = 4  #: how much larger than the sample a file may be
_SCRIPT: Final = "A shell read this line: name a script. / シェルの行です。スクリプトにしてください"
_FOUND: Final = (
    "Found by its name on this machine: is it this one? / 名前で見つけました。確認してください"
)
_INCOMPLETE: Final = "Complete the path. / 絶対パスにしてください"
#: What every command has, and may have.
_REST: Final = (
    "# Longest run in seconds. / 実行時間の上限(秒)",
    "time_limit_s = 86400",
    "# What it prints may name secrets: true lets it leave. / 秘密を含み得ます。true で搬出を許可",
    "stdout = { release = false }",
    "stderr = { release = false }",
    "# What it may touch of this machine. / この計算機で触れられるもの",
    "# sandbox = { read = [], network = false }",
)
#: Where there is no sample: what has to be said of files.
_FILES: Final = (
    "# Inputs: what is named here comes in. / 入力: ここに書いたものだけが入ります",
    "# [[command.input]]",
    '# path = "*.inp"',
    "# required = false",
    "# Outputs: what is named here may leave. / 出力: ここに書いたものだけが出ます",
    "# [[command.output]]",
    '# path = "result.csv"',
    '# max_bytes = "10 MiB"',
)


@click.command("manifest-from", cls=Command)
@click.option("--ini", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--site", required=True, metavar="NAME")
@click.option("--command", "commands", multiple=True, metavar="TEXT")
@click.option("--user", "users", multiple=True, metavar="USER")
@click.option("--sample", type=click.Path(path_type=Path, file_okay=False, exists=True))
@click.option("--input", "inputs", multiple=True, metavar="NAME")
@click.pass_obj
def manifest_from(  # noqa: PLR0913 - click passes each option as an argument
    session: Session,
    *,
    ini: Path | None,
    site: str,
    commands: tuple[str, ...],
    users: tuple[str, ...],
    sample: Path | None,
    inputs: tuple[str, ...],
) -> None:
    """Draft a manifest of old MInt commands and the work directory of a sample job."""
    listed = [text for text in commands if text.strip()]
    if ini is not None:
        sites, name = read_ini(read_text(ini), ini.name).sites, site_name(site)
        if name is None or name not in sites:
            raise ConfigError("mint.ini", file=ini.name, why=site)
        listed += sites[name].values()
        site = name
    if not listed:
        raise UsageError("mint.no_commands")
    text = draft(site, users, named(listed), _files(sample), frozenset(inputs))
    parse_manifest(text, "manifest.toml")
    for line in text.splitlines():
        output.result(session, line)


def _files(sample: Path | None) -> dict[str, int]:
    """Return the files of the sample by name, with their sizes; those whose name may travel."""
    if sample is None:
        return {}
    found = {}
    for file in sorted(sample.rglob("*")):
        name = "/".join(file.relative_to(sample).parts)
        if file.is_file() and not file.is_symlink() and _plain(name):
            found[name] = file.stat().st_size
    return found


def _plain(name: str) -> bool:
    try:
        return RelPath.parse(name) is not None and Pattern(name).literal
    except UsageError:
        return False


def draft(
    site: str,
    users: Sequence[str],
    commands: dict[str, str],
    files: dict[str, int],
    inputs: frozenset[str],
) -> str:
    """Return the text of the manifest."""
    served = ", ".join(quoted(user) for user in sorted(users))
    lines = ["schema = 1", f"site = {quoted(site)}", f"submitters = [{served}]"]
    for name, command in commands.items():
        lines += ["", *_command(name, command), *(() if files else _FILES)]
        for file, size in files.items():
            if file not in (STDOUT_NAME, STDERR_NAME):
                lines += _rule("input" if file in inputs else "output", file, size)
    return "\n".join(lines) + "\n"


def _command(name: str, command: str) -> Iterator[str]:
    argv, remark = _argv(command)
    yield "[[command]]"
    yield f"name = {quoted(name)}"
    yield f"mint_command = {quoted(command)}"
    if remark:
        yield f"# {remark}"
    yield f"argv = [{', '.join(quoted(word) for word in argv)}]"
    yield from _REST


def _argv(command: str) -> tuple[list[str], str]:
    """Return the argument vector of an old command, and what its owner must do about it."""
    try:
        argv = [] if _SHELL.search(command) else shlex.split(command)
    except ValueError:
        argv = []
    if not argv:
        return ["/COMPLETE/script.sh"], _SCRIPT
    if argv[0].startswith("/"):
        return argv, ""
    found = shutil.which(argv[0])
    if found is not None and found.startswith("/"):
        return [found, *argv[1:]], _FOUND
    return [f"/COMPLETE/{argv[0]}", *argv[1:]], _INCOMPLETE


def _rule(kind: str, name: str, size: int) -> list[str]:
    most = max(1, -(-size * _ROOM // _MIB))
    rule = [f"[[command.{kind}]]", f"path = {quoted(name)}", f'max_bytes = "{most} MiB"']
    return [*rule, "required = false"] if kind == "input" else rule
