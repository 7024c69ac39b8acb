"""Every number that bounds what another party can make us hold, read or write."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

MIB: Final = 1 << 20

#: A chunk with its frame fits a body of 1 MiB, the default limit of nginx.
MAX_CHUNK_BYTES: Final = 960 << 10
CHUNK_BYTES: Final = 512 << 10
DIGEST_BYTES: Final = 32
#: A draft that is to bring so much is told to its site, which may fetch it while it still comes.
EARLY_BYTES: Final = 32 * MIB
#: So much of it may be waited for at a time.
MAX_EARLY_BYTES: Final = 64 * MIB
#: Drafts that one agent is told of at a time.
MAX_COMING: Final = 64
#: Digests of one question "which of these are missing?": 512 KiB of body.
MAX_DIGESTS: Final = 16_384
#: A stream of chunks is closed and a new one opened after this many bytes (default nginx: 1 MiB).
MAX_PART_BYTES: Final = MIB - 4096
MAX_MESSAGE_BYTES: Final = 512 << 10
MAX_ENVELOPE_BYTES: Final = 256 << 10
#: Files in one snapshot of a running job, together; its envelope still fits a message.
MAX_SNAPSHOT_BYTES: Final = 256 << 10
MAX_SNAPSHOT_FILES: Final = 16
MAX_SNAPSHOT_ENVELOPE_BYTES: Final = 372 << 10
MIN_PUBLISH_SECONDS: Final = 2.0

MAX_PATH_BYTES: Final = 1024
MAX_NAME_BYTES: Final = 255
MAX_DEPTH: Final = 32
MAX_FILES: Final = 100_000
MAX_TREE_BYTES: Final = 1 << 50
#: The list of a tree is the one thing held in memory as a whole, in a form of its own.
MAX_LIST_BYTES: Final = 256 * MIB
#: A list of files that is no longer is looked at before it is judged: then the file is named.
SHORT_LIST_BYTES: Final = MIB
#: A longer one has so much for each file (each byte of its name may be escaped) and for each chunk,
#: and chunks of so many bytes on average: cut finer, it would mostly keep others busy.
LIST_BYTES_PER_FILE: Final = 2 * MAX_PATH_BYTES + 256
LIST_BYTES_PER_CHUNK: Final = 80
LEAST_MEAN_CHUNK_BYTES: Final = 4096

MAX_PARAMETERS: Final = 64
MAX_REQUESTED: Final = 256
MAX_VALUE_LENGTH: Final = 4096

OFFER_TIME: Final = timedelta(seconds=60)
QUEUE_TIME: Final = timedelta(days=7)
MAX_QUEUE_TIME: Final = timedelta(days=60)
DRAFT_TIME: Final = timedelta(days=1)
POLL_SECONDS: Final = 25.0
MIN_POLL_SECONDS: Final = 5.0
BACKOFF_CAP_SECONDS: Final = 60.0
