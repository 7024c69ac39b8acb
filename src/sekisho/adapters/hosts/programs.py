"""Programs at another host: are they there, and may this login run them. Nothing is run."""

from __future__ import annotations

from typing import Final

#: What a shell does: for each argument it says one word.
LOOK: Final = """\
for file; do
    word=ok
    [ -x "$file" ] || word=closed
    [ -f "$file" ] || word=missing
    echo $word
done
"""
