"""Why a server's certificate was not believed, in one word.

The numbers are results of OpenSSL's verification (`x509_vfy.h`).
"""

from __future__ import annotations

from typing import Final

_WORDS: Final = {
    **dict.fromkeys((2, 18, 19, 20, 21), "issuer"),
    **dict.fromkeys((62, 64), "host"),
    9: "early",
    10: "expired",
}


def disbelief(verify_code: int) -> str | None:
    """Return `issuer` (not known), `host` (of others), `early`, `expired`; None: anything else."""
    return _WORDS.get(verify_code)
