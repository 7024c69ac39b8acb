"""The description of the API in OpenAPI 3.1, made from the route table and the messages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from sekisho import __version__
from sekisho.domain.access import Scope
from sekisho.http.call import Anything, Chunks, Digests, Document, Frames, Row, Text
from sekisho.wire.v1 import Problem

_REF: Final = "#/components/schemas/{name}"
_BINARY: Final = {"type": "string", "contentMediaType": "application/octet-stream"}
_PLAIN: Final[dict[type, tuple[str, dict[str, Any]]]] = {
    Chunks: ("application/octet-stream", _BINARY),
    Digests: ("application/octet-stream", _BINARY),
    Frames: ("application/octet-stream", _BINARY),
    Anything: ("application/octet-stream", _BINARY),
    Text: ("text/plain", {"type": "string"}),
    Document: ("application/json", {"type": "object"}),
}


def openapi(rows: Sequence[Row]) -> dict[str, Any]:
    """Return the document that describes ``rows``."""
    kinds = [Problem, *(row.gives for row in rows), *(row.takes for row in rows if row.takes)]
    messages = sorted({k for k in kinds if _is_message(k)}, key=lambda kind: kind.__name__)
    schemas, components = msgspec.json.schema_components(messages, ref_template=_REF)
    by_message = dict(zip(messages, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for row in rows:
        paths.setdefault(row.path, {})[row.method.lower()] = _operation(row, by_message)
    return {
        "openapi": "3.1.0",
        "info": {"title": "sekisho broker", "version": __version__},
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _is_message(kind: type) -> bool:
    return issubclass(kind, msgspec.Struct)


def _operation(row: Row, by_message: dict[type, dict[str, Any]]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "summary": row.purpose,
        "x-scope": row.scope.value,
        "parameters": _parameters(row),
        "responses": {
            "200": {"description": "Done", "content": _content(row.gives, by_message)},
            "default": {
                "description": "A problem (RFC 9457)",
                "content": {"application/problem+json": {"schema": by_message[Problem]}},
            },
        },
    }
    if row.scope is not Scope.OPEN:
        operation["security"] = [{"token": []}]
    if row.takes is not None:
        operation["requestBody"] = {"required": True, "content": _content(row.takes, by_message)}
    return operation


def _content(kind: type, by_message: dict[type, dict[str, Any]]) -> dict[str, Any]:
    media, schema = _PLAIN.get(kind) or ("application/json", by_message[kind])
    return {media: {"schema": schema}}


def _parameters(row: Row) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    if "{id}" in row.path:
        text = {"type": "string"}
        found.append({"name": "id", "in": "path", "required": True, "schema": text})
    if row.query is not None:
        found += [
            {
                "name": field.encode_name,
                "in": "query",
                "required": field.required,
                "schema": msgspec.json.schema(field.type),
            }
            for field in msgspec.structs.fields(row.query)
        ]
    return found
