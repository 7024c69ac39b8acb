"""What the manifest says to a request, whether it is offered or only on its way."""

from __future__ import annotations

from sekisho.domain.files import Pattern
from sekisho.domain.manifest import Admission, Announced, Arrival, Order, admit, mint_order
from sekisho.site.desk import Word
from sekisho.transfer.tree import Tree
from sekisho.wire.envelope import MintRequest, Request, TreeRef


def admission(word: Word, submitter: str, request: Request, tree: Tree | None) -> Admission:
    """Return what is allowed, or raise Refused.

    Without ``tree`` inputs are judged by what the request says of them, and later once more.
    """
    command, parameters = request.command, request.parameters
    if isinstance(request, MintRequest):
        text = request.mint_parameters
        command, given = mint_order(word.manifest, request.mint_command, text)
        parameters = dict(given)
    order = Order(
        submitter=submitter,
        command=command,
        parameters=parameters,
        inputs=None if tree is None else [Arrival(f.path, f.size) for f in tree.files],
        outputs=[Pattern(text) for text in request.outputs],
        announced=None if request.inputs is None else _announced(request.inputs),
    )
    return admit(word.manifest, order, disabled=word.disabled)


def _announced(ref: TreeRef) -> Announced:
    list_bytes = sum(piece.size for piece in ref.index)
    return Announced(files=ref.files, bytes=ref.size, list_bytes=list_bytes)
