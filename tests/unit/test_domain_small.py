"""The small rules: tokens, waiting, limits, variables."""

import pytest

from sekisho.domain.access import PREFIXES, Role
from sekisho.domain.backoff import FIRST_SECONDS, delay
from sekisho.domain.errors import UsageError
from sekisho.domain.launch import SHELL_NAMES, check_variable
from sekisho.domain.limits import (
    BACKOFF_CAP_SECONDS,
    CHUNK_BYTES,
    DIGEST_BYTES,
    MAX_CHUNK_BYTES,
    MAX_DIGESTS,
    MAX_PART_BYTES,
    MIB,
)
from sekisho.domain.token import (
    ENTROPY_BYTES,
    Secret,
    hash_token,
    is_token,
    make_token,
)


@pytest.mark.parametrize("role", Role)
def test_a_token_shows_its_role_and_checks_itself(role: Role) -> None:
    text = make_token(role, bytes(range(32))).reveal()
    assert text.startswith(PREFIXES[role])
    assert is_token(text)


@pytest.mark.parametrize("at", range(53))
def test_a_token_with_one_other_character_is_none(at: int) -> None:
    text = make_token(Role.SUBMITTER, bytes(32)).reveal()
    other = "x" if text[at] != "x" else "y"
    assert not is_token(text[:at] + other + text[at + 1 :])


@pytest.mark.parametrize("text", ["", "sks_", "sks_" + "a" * 49, "skq_" + "a" * 49, "Bearer x"])
def test_what_only_looks_like_a_token_is_none(text: str) -> None:
    assert not is_token(text)


def test_a_token_of_a_role_that_does_not_exist_is_none() -> None:
    text = make_token(Role.SITE, bytes(32)).reveal()
    assert not is_token("skz_" + text[4:])


def test_different_entropy_makes_different_tokens_and_hashes() -> None:
    one, other = (make_token(Role.SITE, bytes([n]) * 32).reveal() for n in (1, 2))
    assert one != other
    assert hash_token(one) != hash_token(other)
    assert hash_token(one) == hash_token(one)
    assert one not in hash_token(one)
    assert len(hash_token("\ud800")) == 64


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_token_has_256_bits(length: int) -> None:
    assert ENTROPY_BYTES * 8 == 256
    with pytest.raises(ValueError, match=str(length)):
        make_token(Role.SITE, bytes(length))


def test_a_secret_shows_itself_only_when_asked() -> None:
    secret = Secret("canary")
    assert "canary" not in f"{secret} {secret!r} {[secret]}"
    assert secret.reveal() == "canary"


def test_waiting_doubles_with_every_failure_up_to_the_cap() -> None:
    ceilings = [delay(n, 1.0) for n in range(1, 40)]
    assert ceilings[:3] == [FIRST_SECONDS, 2 * FIRST_SECONDS, 4 * FIRST_SECONDS]
    assert ceilings == sorted(ceilings)
    assert ceilings[-1] == BACKOFF_CAP_SECONDS


def test_waiting_is_anything_from_nothing_to_its_ceiling() -> None:
    assert delay(5, 0.0) == 0.0
    assert delay(5, 0.5) == delay(5, 1.0) / 2
    assert delay(0, 1.0) == delay(1, 1.0)


def test_the_greatest_bodies_pass_a_proxy_with_default_limits() -> None:
    frame_head = DIGEST_BYTES + 4
    assert CHUNK_BYTES <= MAX_CHUNK_BYTES
    assert MAX_CHUNK_BYTES + frame_head < MIB
    assert MAX_PART_BYTES < MIB
    assert MAX_DIGESTS * frame_head < MIB


@pytest.mark.parametrize("name", ["A", "_x", "OMP_NUM_THREADS", "a1", "x" * 64])
def test_a_plain_variable_may_be_set(name: str) -> None:
    check_variable(name)


@pytest.mark.parametrize(
    "name",
    [
        *("", "1A", "A-B", "A B", "A=B", "A\n", "é", "A.B", "x" * 65, "BASH_ENV", "BASHOPTS"),
        *("BASH_FUNC_ls%%", "sekisho_token", "EPOCHSECONDS", *sorted(SHELL_NAMES)),
    ],
)
def test_a_variable_that_a_shell_would_read_may_not(name: str) -> None:
    with pytest.raises(UsageError) as fault:
        check_variable(name)
    assert fault.value.code == "launch.environment"
