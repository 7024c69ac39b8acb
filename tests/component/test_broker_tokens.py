"""Credentials: shown once, kept hashed, worthless at once when revoked."""

from __future__ import annotations

from datetime import timedelta

import pytest

from sekisho.domain.access import PREFIXES, Role
from sekisho.domain.errors import Conflict, NotFound, Unauthenticated, UsageError
from sekisho.domain.token import hash_token, is_token, make_token
from sekisho.wire.v1 import Joined, JoinSite
from tests.component.broker_world import AGENT, World


@pytest.fixture
def world() -> World:
    return World()


def a_join(number: int = 1) -> tuple[str, JoinSite]:
    secret = make_token(Role.SITE, bytes([number]) * 32).reveal()
    return secret, JoinSite(instance=AGENT, token_hash=hash_token(secret))


@pytest.mark.parametrize("role", [Role.SUBMITTER, Role.MONITOR, Role.ADMIN])
def test_a_token_stands_for_whom_it_was_made(world: World, role: Role) -> None:
    token, secret = world.desk.tokens.create(role, "alice")
    text = secret.reveal()
    assert text.startswith(PREFIXES[role])
    assert is_token(text)
    principal = world.desk.tokens.authenticate(text)
    assert (principal.token_id, principal.role, principal.name) == (token.id, role, "alice")


def test_a_secret_does_not_show_itself(world: World) -> None:
    token, secret = world.desk.tokens.create(Role.ADMIN, "alice")
    for shown in (repr(secret), str(secret), f"{secret}", repr(token)):
        assert secret.reveal()[4:] not in shown
        assert hash_token(secret.reveal()) not in shown


@pytest.mark.parametrize("text", ["", "sks_", "x" * 53, "sks_" + "A" * 49, "\udcff"])
def test_a_wrong_credential_is_refused(world: World, text: str) -> None:
    with pytest.raises(Unauthenticated):
        world.desk.tokens.authenticate(text)


def test_a_revoked_token_is_worthless_at_once(world: World) -> None:
    token, secret = world.desk.tokens.create(Role.SUBMITTER, "alice")
    revoked = world.desk.tokens.revoke(token.id)
    assert world.desk.tokens.revoke(token.id) == revoked
    with pytest.raises(Unauthenticated):
        world.desk.tokens.authenticate(secret.reveal())


def test_a_token_ends_when_it_was_said_to(world: World) -> None:
    _, secret = world.desk.tokens.create(Role.SUBMITTER, "alice", lasts=timedelta(hours=1))
    world.desk.tokens.authenticate(secret.reveal())
    world.clock.move(timedelta(hours=1))
    with pytest.raises(Unauthenticated):
        world.desk.tokens.authenticate(secret.reveal())


@pytest.mark.parametrize("role", [Role.SITE, Role.INVITATION])
def test_a_sites_credentials_are_not_made_by_hand(world: World, role: Role) -> None:
    with pytest.raises(UsageError):
        world.desk.tokens.create(role, "one")


def test_a_token_that_does_not_exist_cannot_be_revoked(world: World) -> None:
    with pytest.raises(NotFound):
        world.desk.tokens.revoke("tok_none")


def test_a_site_joins_once_with_a_token_of_its_own(world: World) -> None:
    _, invitation = world.desk.tokens.invite("one")
    principal = world.desk.tokens.authenticate(invitation.reveal())
    secret, message = a_join()
    joined = world.desk.tokens.join(principal, message)
    assert joined == Joined(site="one", submitters=["alice", "bob"])
    site = world.desk.tokens.authenticate(secret)
    assert (site.role, site.name) == (Role.SITE, "one")


def test_a_join_whose_reply_was_lost_can_be_repeated(world: World) -> None:
    _, invitation = world.desk.tokens.invite("one")
    principal = world.desk.tokens.authenticate(invitation.reveal())
    secret, message = a_join()
    first = world.desk.tokens.join(principal, message)
    again = world.desk.tokens.authenticate(invitation.reveal())
    assert world.desk.tokens.join(again, message) == first
    assert world.desk.tokens.authenticate(secret).name == "one"


def test_an_invitation_is_not_used_twice(world: World) -> None:
    _, invitation = world.desk.tokens.invite("one")
    principal = world.desk.tokens.authenticate(invitation.reveal())
    world.desk.tokens.join(principal, a_join(1)[1])
    thief, message = a_join(2)
    with pytest.raises(Unauthenticated):
        world.desk.tokens.join(principal, message)
    with pytest.raises(Unauthenticated):
        world.desk.tokens.authenticate(thief)


def test_joining_again_shuts_the_earlier_agent_out(world: World) -> None:
    old = world.token(Role.SITE, "one")
    _, invitation = world.desk.tokens.invite("one")
    world.desk.tokens.join(world.desk.tokens.authenticate(invitation.reveal()), a_join()[1])
    with pytest.raises(Unauthenticated):
        world.desk.tokens.authenticate(old)


def test_rotation_shuts_agent_and_open_invitations_out_at_once(world: World) -> None:
    agent = world.token(Role.SITE, "one")
    invitation = world.token(Role.INVITATION, "one")
    other = world.token(Role.SITE, "two")
    _, fresh = world.desk.tokens.rotate("one")
    for text in (agent, invitation):
        with pytest.raises(Unauthenticated):
            world.desk.tokens.authenticate(text)
    assert world.desk.tokens.authenticate(fresh.reveal()).name == "one"
    assert world.desk.tokens.authenticate(other).name == "two"


@pytest.mark.parametrize("lasts", [timedelta(0), timedelta(days=7, seconds=1)])
def test_an_invitation_lives_a_week_at_most(world: World, lasts: timedelta) -> None:
    with pytest.raises(UsageError):
        world.desk.tokens.invite("one", lasts=lasts)
    week = timedelta(days=7)
    assert world.desk.tokens.invite("one", lasts=week)[0].expires_at == world.clock.now() + week


@pytest.mark.parametrize("name", ["", "a b", "../up", "-x", "a\n", "x" * 65])
def test_a_token_is_for_somebody_with_a_name(world: World, name: str) -> None:
    """Kills: a user whose name means something else where it is shown, or is a path's part."""
    with pytest.raises(UsageError):
        world.desk.tokens.create(Role.SUBMITTER, name)


def test_nobody_is_invited_to_a_site_that_does_not_exist(world: World) -> None:
    with pytest.raises(NotFound):
        world.desk.tokens.invite("nowhere")


def test_a_site_is_added_once_with_right_names(world: World) -> None:
    with pytest.raises(Conflict):
        world.desk.sites.add("one", frozenset({"alice"}))
    with pytest.raises(UsageError):
        world.desk.sites.add("Not A Name", frozenset({"alice"}))
    with pytest.raises(UsageError):
        world.desk.sites.add("three", frozenset({"../alice"}))


def test_a_user_that_the_site_no_longer_lists_is_shut_out(world: World) -> None:
    world.desk.sites.serve("one", frozenset({"bob"}))
    with pytest.raises(NotFound):
        world.submit("alice")
