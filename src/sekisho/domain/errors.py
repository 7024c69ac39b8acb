"""Every error that sekisho raises on purpose.

    SekishoError               code                    exit  http
    ├── UsageError             usage                     64   400   asked wrongly; can never work
    ├── ConfigError            config                    78   500   a file that we read is wrong
    ├── Unauthenticated        auth.required             77   401   no credential, or not a good one
    ├── Refused                refused                   77   403   a policy said no
    ├── NotFound               not_found                 66   404   not there, or not yours to see
    ├── Conflict               conflict                  73   409   it is not in a state for that
    │   ├── InvalidTransition  job.invalid_transition    73   409
    │   └── StaleEpoch         job.stale_epoch           73   409   an offer that is no longer held
    ├── TooLarge               message.too_large         65   413
    ├── IntegrityError         integrity                 76   422   bytes do not match their digest
    ├── QuotaExceeded          quota.exceeded            75   429   retryable
    ├── Unavailable            unavailable               75   503   retryable; nothing was changed
    │   ├── Unreachable        broker.unreachable        69   503   retryable
    │   └── StorageFull        storage.full              75   507   retryable
    ├── Corrupt                state.corrupt             70   500   our own state does not verify
    └── SyncFailed             storage.sync_failed       74   500   the disk lost a write: stop now

An error carries a stable ``code`` and the ``params`` of its message, never a sentence: sentences
live in the catalogue (`sekisho.i18n`) and are made by the reader, in the reader's language.
A finer code may be given as the first argument: ``Refused("command.unknown", command="solve")``.
"""

from __future__ import annotations

from typing import ClassVar


class SekishoError(Exception):
    """Base class. Caught at three boundaries: HTTP endpoint, CLI main, agent loop."""

    code: str = "internal"
    exit_status: ClassVar[int] = 70
    http_status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False
    #: Part of what was asked has been done: trying again goes on from there.
    advanced: bool = False

    def __init__(self, code: str | None = None, /, **params: object) -> None:
        if code is not None:
            self.code = code
        self.params = params
        super().__init__(f"{self.code} {params}" if params else self.code)


class UsageError(SekishoError):
    """The caller asked for something that can never work."""

    code = "usage"
    exit_status = 64
    http_status = 400


class ConfigError(SekishoError):
    """A file that sekisho reads is wrong."""

    code = "config"
    exit_status = 78


class Unauthenticated(SekishoError):
    """No credential was given, or it is unknown, revoked or past its end."""

    code = "auth.required"
    exit_status = 77
    http_status = 401


class Refused(SekishoError):
    """A policy said no. Trying again will not help."""

    code = "refused"
    exit_status = 77
    http_status = 403


class NotFound(SekishoError):
    """The thing named does not exist, or this principal may not know that it does."""

    code = "not_found"
    exit_status = 66
    http_status = 404


class Conflict(SekishoError):
    """The thing exists, but not in a state in which this can be done."""

    code = "conflict"
    exit_status = 73
    http_status = 409


class InvalidTransition(Conflict):
    """The event cannot happen in the job's present state."""

    code = "job.invalid_transition"


class StaleEpoch(Conflict):
    """The sender speaks of an offer that is no longer held; it must stop acting on it."""

    code = "job.stale_epoch"


class TooLarge(SekishoError):
    """A message is longer than its limit."""

    code = "message.too_large"
    exit_status = 65
    http_status = 413


class IntegrityError(SekishoError):
    """Bytes do not match the digest that names them."""

    code = "integrity"
    exit_status = 76
    http_status = 422


class QuotaExceeded(SekishoError):
    """A limit of this site or submitter is reached; room may come back."""

    code = "quota.exceeded"
    exit_status = 75
    http_status = 429
    retryable = True


class Unavailable(SekishoError):
    """Could not be done now. Nothing was changed; try again later."""

    code = "unavailable"
    exit_status = 75
    http_status = 503
    retryable = True


class Unreachable(Unavailable):
    """The other side did not answer."""

    code = "broker.unreachable"
    exit_status = 69


class StorageFull(Unavailable):
    """There is no room to store what was sent."""

    code = "storage.full"
    http_status = 507


class Corrupt(SekishoError):
    """Our own stored state does not verify; going on could break a promise."""

    code = "state.corrupt"


class SyncFailed(SekishoError):
    """The disk did not keep what was written. Nothing it says afterwards can be trusted.

    Never retried: the boundaries end the process with this status, and the restart looks afresh.
    """

    code = "storage.sync_failed"
    exit_status = 74
