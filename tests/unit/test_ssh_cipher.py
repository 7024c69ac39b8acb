"""Which cipher is asked for first: AES-GCM, unless somebody has chosen."""

from __future__ import annotations

import pytest

from sekisho.adapters.hosts.ssh_cipher import preferred

GCM_128, GCM_256, CHACHA = (
    "aes128-gcm@openssh.com",
    "aes256-gcm@openssh.com",
    "chacha20-poly1305@openssh.com",
)
DEFAULT = f"{CHACHA},aes128-ctr,{GCM_128},{GCM_256}"


def test_of_the_programs_own_list_the_fast_ones_come_first_and_none_is_lost() -> None:
    assert preferred(DEFAULT, DEFAULT) == f"{GCM_128},{GCM_256},{CHACHA},aes128-ctr"


@pytest.mark.parametrize("chosen", [CHACHA, f"{GCM_256},{GCM_128}", f"{DEFAULT},aes256-cbc", None])
def test_what_somebody_has_chosen_stays(chosen: str | None) -> None:
    """Killed by: not comparing, which would weaken a policy of the user or of the system."""
    assert preferred(chosen, DEFAULT) is None


def test_nothing_is_preferred_where_there_is_no_gcm() -> None:
    assert preferred("aes128-ctr", "aes128-ctr") is None
    assert preferred(None, None) is None
