"""Messages of the old MInt protocol, in its own words; and the ids that both worlds share.

An accept id is a UUID, a job id 128 bits under another spelling: each is the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Final
from uuid import UUID

import msgspec
from msgspec import Meta, Struct

from sekisho.domain.egress import STDERR_NAME, STDOUT_NAME
from sekisho.domain.errors import UsageError
from sekisho.domain.files import Pattern, RelPath
from sekisho.domain.ids import job_number, numbered_job
from sekisho.domain.limits import CHUNK_BYTES, MAX_REQUESTED
from sekisho.wire.envelope import TreeRef
from sekisho.wire.mint_body import Content

BASE_PATH: Final = "/mi-distcomp-api"
#: Two results that are asked for whatever is listed.
LOG_NAMES: Final = (STDOUT_NAME, STDERR_NAME)
#: What ``mimetype1`` says of a result that is not there; ``mimetype2`` is then a sentence.
ERROR: Final = "Error"
MAX_FILES: Final = 1024
#: A file of one chunk is looked at, whether it is text; a longer one is not read for that.
_TEXT: Final = "text/plain;"
_BINARY: Final = ("application/octet-stream;", "charset=binary")
Text = Annotated[str, Meta(max_length=2048)]
Kind = Annotated[str, Meta(max_length=256)]

NOT_START: Final = "not start"
SENDING_PARAMS: Final = "sending params"
COMPLETE_SEND: Final = "complete send"
RUNNING: Final = "running"
CALC_END: Final = "calc end"
GETTING_RETURN: Final = "getting return"
GOT_RETURN: Final = "got return"
#: Progress, in its order.
PROGRESS: Final = (
    NOT_START,
    SENDING_PARAMS,
    COMPLETE_SEND,
    RUNNING,
    CALC_END,
    GETTING_RETURN,
    GOT_RETURN,
)
COMPLETED: Final = "completed"
ABNORMAL: Final = "abnormal"
END_SEND: Final = "end send"


def accept_id_of(job_id: str) -> str:
    """Return the UUID under which old programs speak of a job."""
    return str(UUID(int=job_number(job_id)))


def job_id_of(accept_id: str) -> str:
    """Return the job of an accept id; raise UsageError for what is none."""
    try:
        found = UUID(accept_id)
    except ValueError as error:
        raise UsageError("message.invalid", why="accept_id") from error
    if str(found) != accept_id.lower():
        raise UsageError("message.invalid", why="accept_id")
    return numbered_job(found.int)


def new_job_id(*, at_ms: int, entropy: bytes) -> str:
    """Return the id of a job whose accept id is a UUID of version 7, made of 10 random bytes."""
    low = int.from_bytes(entropy)
    number = at_ms << 80 | 7 << 76 | (low >> 62 & 0xFFF) << 64 | 2 << 62 | (low & ((1 << 62) - 1))
    return numbered_job(number)


class CalcInfo(Struct, kw_only=True):
    """What a calculation is. A file is its content in base64, a MIME type and a character set."""

    command: Text = ""
    remote_site: Text = msgspec.field(default="", name="remote-site")
    parameters: Text = ""
    parameter_files: Annotated[
        dict[str, Annotated[list[str], Meta(max_length=8)]], Meta(max_length=MAX_FILES)
    ] = {}
    result_files: Annotated[dict[str, Any], Meta(max_length=MAX_REQUESTED)] = {}


class AddCalcInfo(Struct, kw_only=True):
    calc_info: CalcInfo | None = msgspec.field(default=None, name="calc-info")


class ResultFile(Struct, kw_only=True):
    content: str = ""
    mimetype1: Kind = ""
    mimetype2: Text = ""


class Named(Struct, kw_only=True):
    """What most calls send."""

    accept_id: Text = ""
    site_id: Text = ""
    delete: Text = ""
    result: Text = ""


class SentResults(Struct, kw_only=True):
    accept_id: Text = ""
    site_id: Text = ""
    result_files: Annotated[dict[str, ResultFile], Meta(max_length=MAX_FILES)] = {}


class Note(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the broker remembers of a job that an old program has to do with."""

    old_client: bool = False  #: an old workflow client registered it
    command: str = ""  #: what an old agent runs
    parameters: str = ""
    inputs: TreeRef | None = None
    kinds: dict[str, tuple[str, str]] = {}  #: of inputs: MIME type and character set
    results: list[str] = []  #: names asked for
    progress: str = ""  #: as an old agent told, where the job's state does not say it
    told: dict[str, int] = {}  #: how often which address was told of it
    sent_to: str = ""  #: the address to which the inputs went
    end: str = ""  #: `completed` or `abnormal`, as the agent said
    returned: TreeRef | None = None
    returned_kinds: dict[str, tuple[str, str]] = {}
    missing: dict[str, str] = {}  #: results that are not there, each with the agent's sentence
    results_sent: bool = False
    forgotten: bool = False  #: deleted by force: old clients see it no more


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer: HTTP status, the old code, which sentence, and what goes with it."""

    key: str
    status: int = 200
    code: int | str = 200
    params: Mapping[str, str] = field(default_factory=dict)
    beside: Mapping[str, str] = field(default_factory=dict)  #: next to code and message
    site: str = ""  #: which site it is about, where that is to be counted


def input_name(text: str) -> RelPath:
    """Return the name of an input: what stands behind its last slash, if that is safe."""
    return RelPath((text.rpartition("/")[2],))


def result_name(text: str) -> str:
    """Return the name of a result when it is safe and means one file; else raise UsageError."""
    RelPath.parse(text)
    if not Pattern(text).literal:
        raise UsageError("path.invalid", path=text[:200], why="pattern")
    return text


def kind_of(content: Content) -> tuple[str, str]:
    """Return MIME type and character set of a file, as old programs write them."""
    if content.size > CHUNK_BYTES:
        return _BINARY
    data = b"".join(content.pieces())
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return _BINARY
    if "\0" in text:
        return _BINARY
    return _TEXT, "charset=us-ascii" if text.isascii() else "charset=utf-8"
