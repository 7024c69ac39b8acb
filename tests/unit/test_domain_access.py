"""Who may do what."""

import pytest

from sekisho.domain.access import PREFIXES, SCOPES, Principal, Role, Scope, Submitters


@pytest.mark.parametrize(
    ("role", "scopes"),
    [
        (Role.SUBMITTER, {Scope.OPEN, Scope.JOB_SUBMIT, Scope.JOB_READ, Scope.JOB_CANCEL}),
        (Role.SITE, {Scope.OPEN, Scope.SITE_WORK}),
        (Role.INVITATION, {Scope.OPEN, Scope.SITE_JOIN}),
        (Role.MONITOR, {Scope.OPEN, Scope.METRICS_READ}),
        (Role.ADMIN, {Scope.OPEN, Scope.ADMIN, Scope.METRICS_READ}),
    ],
)
def test_a_role_has_exactly_these_scopes(role: Role, scopes: set[Scope]) -> None:
    assert Principal(token_id="t", role=role, name="n").scopes == scopes


def test_every_role_has_scopes_and_a_prefix_of_its_own() -> None:
    assert SCOPES.keys() == PREFIXES.keys() == set(Role)
    assert len(set(PREFIXES.values())) == len(Role)
    assert {len(prefix) for prefix in PREFIXES.values()} == {4}


def test_every_scope_but_the_open_one_is_of_some_role() -> None:
    assert set().union(*SCOPES.values()) == set(Scope) - {Scope.OPEN}


def test_an_administrator_reads_no_job_and_does_no_work_of_a_site() -> None:
    admin = Principal(token_id="t", role=Role.ADMIN, name="n").scopes
    assert not admin & {Scope.JOB_READ, Scope.JOB_SUBMIT, Scope.SITE_WORK}


def test_an_empty_list_serves_nobody() -> None:
    assert not Submitters(frozenset()).include("ann")
    assert not Submitters(frozenset()).include("")


def test_a_user_is_served_by_exact_name() -> None:
    listed = Submitters(frozenset({"ann"}))
    assert listed.include("ann")
    assert not any(listed.include(name) for name in ("Ann", "ann ", "an", "ann\n", "*"))
