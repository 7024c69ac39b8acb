"""What every Directory does: whom a token belongs to, and what a site is."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from sekisho.broker.ports import Sighting, Store, Token
from sekisho.domain.access import Principal, Role
from sekisho.domain.errors import Conflict
from tests.world import DAY, HOUR, NOW, a_site, a_token

TICK = timedelta(microseconds=1)


def a_sighting(site: str) -> Sighting:
    return Sighting(site=site, at=NOW, agent_version="1.0", instance="agent-1")


def principal(store: Store, token: Token) -> Principal | None:
    return store.directory.principal_for(token.hash, NOW)


def owner(token: Token) -> Principal:
    return Principal(token_id=token.id, role=token.role, name=token.name)


def put(store: Store, token: Token) -> Token:
    store.directory.put_token(token)
    return token


def invited(store: Store, **changes: Any) -> Token:
    store.directory.put_site(a_site())
    return put(store, a_token(Role.INVITATION, "one", **changes))


@pytest.mark.parametrize("role", [Role.SUBMITTER, Role.MONITOR, Role.ADMIN])
def test_a_token_belongs_to_its_owner(store: Store, role: Role) -> None:
    token = put(store, a_token(role))
    assert principal(store, token) == owner(token)


def test_an_unknown_token_belongs_to_nobody(store: Store) -> None:
    put(store, a_token())
    assert principal(store, a_token()) is None


@pytest.mark.parametrize(
    ("change", "valid"),
    [
        ({"expires_at": NOW + TICK}, True),
        ({"expires_at": NOW}, False),
        ({"expires_at": NOW - DAY}, False),
        ({"revoked_at": NOW}, False),
        ({"revoked_at": NOW + DAY}, False),
    ],
)
def test_a_token_is_valid_until_it_expires_or_is_revoked(
    store: Store, change: dict[str, Any], *, valid: bool
) -> None:
    token = put(store, a_token(**change))
    assert (principal(store, token) is not None) is valid


@pytest.mark.parametrize("role", [Role.SITE, Role.INVITATION])
def test_a_sites_token_is_valid_while_the_site_exists(store: Store, role: Role) -> None:
    token = put(store, a_token(role, "one"))
    assert principal(store, token) is None
    store.directory.put_site(a_site())
    assert principal(store, token) == owner(token)


def test_a_user_needs_no_site_of_the_same_name(store: Store) -> None:
    store.directory.put_site(a_site("alice"))
    assert principal(store, put(store, a_token(name="bob"))) is not None


def test_tokens_come_back_oldest_first_with_every_field(store: Store) -> None:
    full = a_token(Role.SITE, "one", expires_at=NOW + DAY, revoked_at=NOW + HOUR, note="ノート")
    early = a_token(created_at=NOW - DAY)
    put(store, full)
    put(store, early)
    assert store.directory.tokens() == [early, full]
    assert store.directory.tokens(role=Role.SITE) == [full]
    assert store.directory.tokens(role=Role.ADMIN) == []


def test_putting_a_token_again_replaces_it(store: Store) -> None:
    token = put(store, a_token())
    revoked = put(store, replace(token, revoked_at=NOW))
    assert store.directory.tokens() == [revoked]
    assert principal(store, token) is None


def test_two_tokens_never_share_a_secret(store: Store) -> None:
    token = put(store, a_token())
    with pytest.raises(Conflict) as caught:
        put(store, a_token(Role.ADMIN, "eve", hash=token.hash))
    assert caught.value.code == "token.exists"
    assert store.directory.tokens() == [token]


def test_redeeming_adds_the_sites_token_and_revokes_its_earlier_ones(store: Store) -> None:
    invitation = invited(store)
    gone = put(store, a_token(Role.SITE, "one", revoked_at=NOW - timedelta(days=1)))
    old, bystander = put(store, a_token(Role.SITE, "one")), put(store, a_token(Role.SITE, "two"))
    user = put(store, a_token(name="one"))
    new = a_token(Role.SITE, "one")
    assert store.directory.redeem(invitation.id, new, NOW)
    assert principal(store, new) == owner(new)
    assert principal(store, old) is None
    revoked = {token.id for token in store.directory.tokens() if token.revoked_at == NOW}
    assert revoked == {old.id}
    assert {bystander, user, gone} <= set(store.directory.tokens())


def test_a_join_whose_reply_was_lost_can_be_repeated(store: Store) -> None:
    invitation = invited(store)
    token = a_token(Role.SITE, "one")
    assert store.directory.redeem(invitation.id, token, NOW)
    assert principal(store, invitation) == owner(invitation)
    again = replace(token, id=token.id + "x")
    assert store.directory.redeem(invitation.id, again, NOW + HOUR)
    assert principal(store, token) == owner(token)
    assert len(store.directory.tokens(role=Role.SITE)) == 1


def test_an_invitation_is_good_for_one_token(store: Store) -> None:
    invitation = invited(store)
    first, second = a_token(Role.SITE, "one"), a_token(Role.SITE, "one")
    assert store.directory.redeem(invitation.id, first, NOW)
    assert not store.directory.redeem(invitation.id, second, NOW)
    assert principal(store, second) is None
    assert principal(store, first) == owner(first)


def test_of_many_that_redeem_at_once_one_joins(store: Store) -> None:
    invitation = invited(store)
    rivals = [a_token(Role.SITE, "one") for _ in range(8)]

    def redeem(token: Token) -> bool:
        return store.directory.redeem(invitation.id, token, NOW)

    with ThreadPoolExecutor(8) as threads:
        joined = list(threads.map(redeem, rivals))
    assert joined.count(True) == 1
    assert [principal(store, token) is not None for token in rivals] == joined


@pytest.mark.parametrize("change", [{"revoked_at": NOW}, {"expires_at": NOW}, {"name": "two"}])
def test_an_invitation_that_is_not_valid_lets_nobody_in(
    store: Store, change: dict[str, Any]
) -> None:
    invitation = invited(store)
    put(store, replace(invitation, **change))
    token = a_token(Role.SITE, "one")
    assert not store.directory.redeem(invitation.id, token, NOW)
    assert store.directory.tokens(role=Role.SITE) == []


@pytest.mark.parametrize(
    "token", [a_token(Role.SITE, "two"), a_token(Role.ADMIN, "one"), a_token(name="one")]
)
def test_an_invitation_makes_no_other_token_than_its_sites(store: Store, token: Token) -> None:
    store.directory.put_site(a_site("two"))
    assert not store.directory.redeem(invited(store).id, token, NOW)
    assert token not in store.directory.tokens()


@pytest.mark.parametrize("role", [Role.SITE, Role.ADMIN, Role.SUBMITTER])
def test_only_an_invitation_is_redeemed(store: Store, role: Role) -> None:
    store.directory.put_site(a_site())
    other = put(store, a_token(role, "one"))
    assert not store.directory.redeem(other.id, a_token(Role.SITE, "one"), NOW)
    assert not store.directory.redeem("tok_unknown", a_token(Role.SITE, "one"), NOW)


def test_a_site_comes_back_as_it_was_put(store: Store) -> None:
    site = a_site(
        submitters=frozenset({"bob", "alice"}),
        disabled=True,
        disabled_commands=frozenset({"solve"}),
    )
    store.directory.put_site(site)
    store.directory.put_site(a_site("another"))
    assert store.directory.site("one") == site
    assert store.directory.site("two") is None
    assert store.directory.sites() == [a_site("another"), site]


def test_what_an_agent_says_leaves_the_operators_decision_alone(store: Store) -> None:
    """Kills: a poll that writes back the site as it read it, and enables it again."""
    store.directory.put_site(a_site())
    store.directory.put_site(a_site(disabled=True))
    store.directory.seen([a_sighting("one")])
    seen = a_site(disabled=True, last_seen_at=NOW, agent_version="1.0", instance="agent-1")
    assert store.directory.site("one") == seen


def test_what_an_operator_decides_leaves_the_agents_word_alone(store: Store) -> None:
    store.directory.put_site(a_site())
    store.directory.seen([a_sighting("one")])
    changed = a_site(
        submitters=frozenset({"bob"}), disabled_commands=frozenset({"x"}), created_at=NOW + DAY
    )
    store.directory.put_site(changed)
    assert store.directory.site("one") == replace(
        changed, created_at=NOW, last_seen_at=NOW, agent_version="1.0", instance="agent-1"
    )


def test_an_unknown_site_that_is_seen_stays_unknown(store: Store) -> None:
    store.directory.seen([a_sighting("nowhere"), a_sighting("elsewhere")])
    assert store.directory.sites() == []
