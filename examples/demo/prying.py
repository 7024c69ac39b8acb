"""A solver that has turned against its site: it tries to read what nobody gave it.

    python prying.py FILE…

`seen.txt` says how many of the files it could read.
"""

from __future__ import annotations

import sys
from pathlib import Path


def main(names: list[str]) -> None:
    seen = 0
    for name in names:
        try:
            Path(name).read_bytes()
        except OSError:
            continue
        seen += 1
    Path("seen.txt").write_text(f"{seen} of {len(names)}\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
