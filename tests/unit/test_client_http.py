"""From answers and failures of HTTP to errors; patience; what a client is set up with."""

from __future__ import annotations

import ssl
from pathlib import Path

import httpcore2
import pytest

from sekisho.adapters.bearer import Bearer
from sekisho.adapters.http_client import Address, base_url, sender, target_of
from sekisho.adapters.http_problem import error_from, error_of
from sekisho.adapters.http_sender import Call
from sekisho.adapters.patience import Patience, Pauses, Repeats, pause_asked_by
from sekisho.adapters.token_file import read_token
from sekisho.adapters.way import way_to
from sekisho.domain.access import Role
from sekisho.domain.errors import (
    ConfigError,
    Conflict,
    InvalidTransition,
    NotFound,
    QuotaExceeded,
    Refused,
    SekishoError,
    StaleEpoch,
    StorageFull,
    TooLarge,
    Unauthenticated,
    Unavailable,
    Unreachable,
    UsageError,
)
from sekisho.domain.token import Secret, make_token


def problem(code: str, status: int) -> bytes:
    return (
        f'{{"type":"urn:sekisho:{code}","status":{status},"code":"{code}","params":{{"a":1}}}}'
    ).encode()


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("message.invalid", 400, UsageError),
        ("auth.required", 401, Unauthenticated),
        ("site.disabled", 403, Refused),
        ("job.not_found", 404, NotFound),
        ("job.different_request", 409, Conflict),
        ("job.stale_epoch", 409, StaleEpoch),
        ("job.invalid_transition", 409, InvalidTransition),
        ("chunk.too_large", 413, TooLarge),
        ("quota.bytes", 429, QuotaExceeded),
        ("unavailable", 503, Unavailable),
        ("storage.full", 507, StorageFull),
        ("internal", 500, Unavailable),
    ],
)
def test_a_problem_becomes_the_error_of_its_code_or_status(
    code: str, status: int, kind: type[SekishoError]
) -> None:
    error = error_of(status, problem(code, status))
    assert (type(error), error.code, error.params) == (kind, code, {"a": 1})


@pytest.mark.parametrize("status", [301, 302, 400, 401, 403, 404, 407, 418])
def test_what_a_portal_on_the_way_says_is_never_the_brokers_word(status: int) -> None:
    error = error_of(status, b"<html>log in</html>")
    assert (type(error), error.code) == (Unreachable, "broker.strange_answer")


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_gateway_in_trouble_means_later(status: int) -> None:
    assert error_of(status, b"<html>").retryable


def test_a_limit_of_a_proxy_means_too_large() -> None:
    assert isinstance(error_of(413, b"<html>nginx</html>"), TooLarge)


def test_a_huge_or_deep_problem_is_not_read() -> None:
    assert error_of(404, b" " * 70_000).code == "broker.strange_answer"
    assert error_of(404, b"[" * 60_000).code == "broker.strange_answer"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("7", 7.0), ("0", 0.0), ("86400", 60.0), ("9" * 50, 60.0), ("soon", 0.0), ("-5", 0.0)],
)
def test_a_server_cannot_make_us_wait_longer_than_a_minute(text: str, seconds: float) -> None:
    assert pause_asked_by(error_of(503, b"", text)) == seconds


def test_a_certificate_that_does_not_verify_is_told_apart() -> None:
    failure = httpcore2.ConnectError("tls")
    failure.__cause__ = ssl.SSLCertVerificationError(1, "self-signed")
    assert error_from(failure).code == "broker.tls"
    assert error_from(httpcore2.ConnectError("no")).code == "broker.unreachable"
    assert error_from(httpcore2.ProxyError("no")).code == "broker.proxy"
    assert error_from(httpcore2.ProxyError("502 Bad Gateway")).code == "broker.proxy"
    assert error_from(httpcore2.ProxyError("403 Filtered")).code == "broker.proxy_refused"
    for words in ("407 Proxy Authentication Required", "Invalid username/password"):
        assert error_from(httpcore2.ProxyError(words)).code == "broker.proxy_login"
    assert error_from(httpcore2.ReadTimeout("late")).params == {"why": "timeout"}


@pytest.mark.parametrize(
    ("code", "why"), [(18, "issuer"), (62, "host"), (10, "expired"), (9, "early"), (23, "revoked")]
)
def test_why_a_certificate_is_not_believed_is_a_word_where_there_is_one(
    code: int, why: str
) -> None:
    failure = httpcore2.ConnectError("tls")
    failure.__cause__ = refused = ssl.SSLCertVerificationError(1, "no")
    refused.verify_code, refused.verify_message = code, "revoked"
    assert error_from(failure).params == {"why": why, "said": "revoked"}


@pytest.mark.parametrize(
    ("reason", "why"),
    [
        ("UNSUPPORTED_PROTOCOL", "tls_version"),
        ("TLSV1_ALERT_PROTOCOL_VERSION", "tls_version"),
        ("WRONG_VERSION_NUMBER", "tls"),
    ],
)
def test_a_line_without_tls_is_told_from_one_of_another_version(reason: str, why: str) -> None:
    failure = httpcore2.ConnectError("tls")
    failure.__cause__ = broken = ssl.SSLError(1, reason)
    broken.reason = reason
    assert error_from(failure).params == {"why": why}


class Time:
    """A clock that moves by being waited on."""

    def __init__(self) -> None:
        self.now = 0.0
        self.waits: list[float] = []

    def wait(self, seconds: float) -> bool:
        self.now += seconds
        self.waits.append(seconds)
        return False


def patience(time: Time) -> Patience:
    return Patience(wait=time.wait, monotonic=lambda: time.now)


def test_pauses_grow_to_a_minute_and_no_further() -> None:
    time = Time()
    pauses = Pauses(patience(time), None)
    for _ in range(200):
        pauses.after(Unavailable())
    assert max(time.waits) <= 60
    assert max(time.waits) > 20
    assert time.waits[0] <= 0.25


def test_pauses_stay_short_while_something_gets_through() -> None:
    """Killed by: counting every cut of a transfer that moves as one more failure in a row."""
    time = Time()
    pauses = Pauses(patience(time), None)
    error = Unavailable()
    error.advanced = True
    for _ in range(200):
        pauses.after(error)
    assert max(time.waits) <= 0.25
    for _ in range(20):
        pauses.after(Unavailable())
    assert max(time.waits) > 1


def test_patience_ends_with_the_error_itself() -> None:
    time = Time()
    pauses = Pauses(patience(time), 100)

    def keep_trying() -> None:
        while True:
            pauses.after(Unavailable("mine"))

    with pytest.raises(Unavailable, match="mine"):
        keep_trying()
    assert time.now <= 100


def impatient(time: Time) -> Repeats:
    return Repeats(Patience(first_s=100, wait=time.wait, monotonic=lambda: time.now))


def test_a_line_that_never_answers_is_given_up() -> None:
    time = Time()

    def never() -> None:
        raise Unavailable("mine")

    with pytest.raises(Unavailable, match="mine"):
        impatient(time).until_through(never)
    assert time.now <= 100


def test_a_line_that_answers_within_an_attempt_is_waited_for_from_then_on() -> None:
    """Killed by: a bound for the first contact that is fixed before there was one."""
    time = Time()
    repeats = impatient(time)
    cuts = iter(range(3))

    def long_and_cut() -> str:
        repeats.heard()
        time.now += 1000
        if next(cuts, None) is not None:
            raise Unavailable
        return "whole"

    assert repeats.until_through(long_and_cut) == "whole"


@pytest.mark.parametrize(
    "error", [Refused(), Conflict(), QuotaExceeded(), Unreachable("broker.tls", why="x")]
)
def test_what_no_repetition_helps_is_told_at_once(error: SekishoError) -> None:
    time = Time()
    with pytest.raises(type(error)):
        Pauses(patience(time), None).after(error)
    assert time.waits == []


def test_what_the_server_asks_for_is_waited() -> None:
    time = Time()
    Pauses(patience(time), None).after(Unavailable(retry_after_s=30))
    assert time.waits == [30.0]


def test_a_stopped_wait_ends_with_the_error() -> None:
    with pytest.raises(Unavailable):
        Pauses(Patience(wait=lambda _seconds: True), None).after(Unavailable())


@pytest.mark.parametrize(
    "url", ["http://broker.example", "ftp://x", "broker", "http://127.0.0.1.x"]
)
def test_plain_http_is_for_this_very_machine_only(url: str) -> None:
    with pytest.raises(ConfigError, match=r"broker\.url"):
        base_url(url)


def test_a_path_prefix_is_kept() -> None:
    assert base_url("https://api.example/sekisho") == "https://api.example/sekisho/"
    address = Address(url="https://api.example/sekisho/", token=Secret("t"))
    request = target_of(address).request(Call(method="GET", path="v1/jobs", query={"after": "a&b"}))
    assert request.url.origin == httpcore2.Origin(b"https", b"api.example", 443)
    assert request.url.target == b"/sekisho/v1/jobs?after=a%26b"
    assert (b"Accept-Encoding", b"identity") in request.headers
    assert (b"Host", b"api.example") in request.headers


@pytest.mark.parametrize("proxy", ["socks5://proxy.example:1080", "gopher://proxy.example:70"])
def test_a_kind_of_proxy_that_is_not_known_is_told_and_not_taken_for_another(proxy: str) -> None:
    address = Address(url="https://broker.example", token=Secret("t"), proxy=proxy)
    with pytest.raises(ConfigError) as why:
        sender(address)
    assert (why.value.code, why.value.params) == ("broker.proxy_kind", {"proxy": proxy})


@pytest.mark.parametrize("proxy", ["http://a:secret@[::1", "http://a:secret@h:x", "h:99999"])
@pytest.mark.parametrize("source", ["proxy", "https_proxy"])
def test_an_address_of_a_proxy_that_is_none_is_told_by_its_place_and_not_repeated(
    monkeypatch: pytest.MonkeyPatch, proxy: str, source: str
) -> None:
    monkeypatch.setenv("https_proxy", proxy)
    with pytest.raises(ConfigError) as why:
        way_to("https://broker.example", proxy if source == "proxy" else None)
    assert (why.value.code, why.value.params) == ("broker.proxy_address", {"source": source})


@pytest.mark.parametrize(
    "url", ["https://h:99999", "https://[::1", f"https://{'x' * 70}.example", "https://h:x"]
)
def test_an_address_of_a_broker_that_is_none_is_told(url: str) -> None:
    with pytest.raises(ConfigError, match=r"broker\.url"):
        way_to(url, None)


@pytest.mark.parametrize(
    ("no_proxy", "host", "around"),
    [
        ("broker.example", "broker.example", True),
        ("example", "broker.example", True),
        ("other.example", "broker.example", False),
        ("10.0.0.0/8, other.example", "10.1.2.3", True),
        ("10.0.0.0/8", "11.1.2.3", False),
        ("10.1.2.3", "10.1.2.3", True),
        ("fd00::/8", "[fd12::1]", True),
        ("10.0.0.0/99,*", "broker.example", True),
        ("", "broker.example", False),
    ],
)
def test_no_proxy_knows_names_addresses_and_networks(
    monkeypatch: pytest.MonkeyPatch, no_proxy: str, host: str, around: bool
) -> None:
    for name in ("https_proxy", "no_proxy"):
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    monkeypatch.setenv("no_proxy", no_proxy)
    assert (way_to(f"https://{host}", None).proxy is None) is around


def test_an_authority_file_that_is_none_is_told(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nothing")
    address = Address(url="https://x", token=Secret("t"), ca_file=tmp_path / "ca.pem")
    with pytest.raises(ConfigError, match=r"tls\.ca_file"):
        sender(address)


TOKEN = make_token(Role.SUBMITTER, bytes(32)).reveal()


def test_a_private_token_is_read_and_not_shown(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN + "\n")
    file.chmod(0o600)
    secret = read_token(file)
    assert secret.reveal() == TOKEN
    assert TOKEN not in f"{secret!r} {secret}"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660])
def test_a_token_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN)
    file.chmod(mode)
    with pytest.raises(ConfigError, match=r"token\.file_open"):
        read_token(file)


def test_a_credential_of_the_service_manager_is_accepted_as_it_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN)
    file.chmod(0o440)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert read_token(file).reveal() == TOKEN


@pytest.mark.parametrize("text", ["", "secret", TOKEN[:-1] + "x", TOKEN + TOKEN])
def test_what_is_no_token_is_refused_without_showing_it(tmp_path: Path, text: str) -> None:
    file = tmp_path / "token"
    file.write_text(text)
    file.chmod(0o600)
    with pytest.raises(ConfigError, match=r"token\.malformed") as caught:
        read_token(file)
    assert "secret" not in str(caught.value)


def test_a_token_file_that_cannot_be_opened_is_not_said_to_be_missing(tmp_path: Path) -> None:
    place = tmp_path / "token"
    place.symlink_to(place)
    with pytest.raises(ConfigError, match=r"config\.unreadable"):
        read_token(place)


def test_a_token_file_that_is_missing_or_no_file_is_told(tmp_path: Path) -> None:
    for place in (tmp_path / "absent", tmp_path):
        with pytest.raises(ConfigError, match=r"token\.file_missing"):
            read_token(place)


def test_a_token_that_is_just_being_replaced_is_read_before_the_next_call() -> None:
    """Kills: a program that goes on with the old token when it looked at a bad moment."""
    kept: list[Secret | ConfigError] = [Secret("new"), ConfigError("token.file_missing", file="f")]

    def again() -> Secret:
        found = kept.pop()
        if isinstance(found, ConfigError):
            raise found
        return found

    bearer = Bearer(Secret("old"), again)
    bearer.heed(401)
    told = [bearer.header()[1] for _ in range(3)]
    assert told == [b"Bearer old", b"Bearer new", b"Bearer new"]
