"""`mi-system-wf`: the old workflow client's command line. Blocks until the results are here.

Ends with 0, or with 1 after an abnormal end or an error. When it is ended before that, the
calculation is deleted, as ever.
"""

from __future__ import annotations

from contextlib import closing, suppress
from pathlib import Path
from typing import Final

from sekisho.adapters.http_client import Address
from sekisho.adapters.mint_client import Calculation, MintClient
from sekisho.adapters.mint_line import MintLine
from sekisho.cli import output
from sekisho.cli.interrupt import interruptible
from sekisho.cli.mint import FAILED, first_lines, need, old_token, old_url, old_words
from sekisho.cli.session import Session
from sekisho.domain.errors import SekishoError

#: How words begin that are not the calculation's own parameters.
_WORDS: Final = ("port:", "retry:", "no_auth")


def workflow(session: Session, given: list[str]) -> int:
    """Run one calculation; return the exit status."""
    need(session, given, 6, "mint_wf_help")
    token = old_token(session, given[2])
    rest = given[6:]
    ours = [word for word in rest if word == "debug" or word.startswith(_WORDS)]
    words = old_words(ours)
    url = old_url(given[0], words.port)
    wish = Calculation(
        site=given[1],
        command=given[3],
        inputs=[Path(name) for name in given[4].split(":") if name],
        results=[name for name in given[5].split(":") if name],
        parameters=" ".join(word for word in rest if word not in ours),
    )
    first_lines(session, wish.site, url)
    for file in wish.inputs:
        if not file.is_file():
            output.result(session, session.say("mint_no_input", file=file))
    address = Address(url=url, token=token, ca_file=words.ca_file)
    with closing(MintLine(address)) as line:
        client = MintClient(line, lambda text: output.result(session, f"status: {text}"))
        return _carried(session, client, wish)


def _carried(session: Session, client: MintClient, wish: Calculation) -> int:
    with interruptible():
        accept_id = client.add(wish)
        output.result(session, f"accept_id = {accept_id}")
        try:
            ok = client.wait(accept_id)
            missing = client.fetch(accept_id, wish, Path())
        except BaseException:
            with suppress(SekishoError):
                client.delete(accept_id)
            raise
    for name, why in missing.items():
        output.result(session, f"{name}: {why}")
    return 0 if ok else FAILED
