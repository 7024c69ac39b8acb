"""Who holds a calculation on the old paths, for how long, and what the clock does to it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sekisho.broker.policy import MintSite
from sekisho.domain.access import Role
from sekisho.domain.limits import OFFER_TIME
from sekisho.domain.token import hash_token, make_token
from sekisho.wire.frames import Frame
from sekisho.wire.mint import Named, job_id_of
from sekisho.wire.v1 import JoinSite
from tests.compat.old_programs import LISTED, STDOUT, OldAgent, a_calc, first, said
from tests.compat.old_world import SITES, OldWorld, old_world
from tests.component.broker_world import AGENT

LATER = OFFER_TIME + timedelta(seconds=1)
HALF_AN_HOUR = timedelta(minutes=30, seconds=1)
FILE = {"content": "MQ==", "mimetype1": "text/plain;", "mimetype2": "charset=us-ascii"}
#: The steps of an agent after `calc-params`, in their order.
STEPS: Sequence[tuple[str, dict[str, Any]]] = (
    ("calc-params-complete", {}),
    ("calc-start", {}),
    ("calc-end", {"result": "calc end"}),
    ("send-results", {"result_files": {STDOUT: FILE}}),
    ("end-send", {"result": "end send"}),
)


@pytest.fixture
def world() -> Iterator[OldWorld]:
    with old_world() as made:
        yield made


def pass_time(world: OldWorld, step: timedelta) -> None:
    world.http.world.clock.move(step)
    world.http.world.desk.reaper.tick()


def taken(agent: OldAgent, accept_id: str) -> bool:
    return "calc-info" in agent.params(accept_id).json()


def steps(agent: OldAgent, accept_id: str, number: int) -> None:
    """Take the calculation, and the first ``number`` steps after that."""
    assert taken(agent, accept_id)
    for call, more in STEPS[:number]:
        agent.step(call, accept_id, **more)


def state_of(world: OldWorld, accept_id: str) -> str:
    return world.http.world.job(job_id_of(accept_id)).state.value


# ------------------------------------------------------------------------- one agent, once


def test_two_agents_behind_one_address_never_both_get_the_inputs(world: OldWorld) -> None:
    """Kills: taking a second agent with the first one's token and address for the first."""
    accept_id = world.workflow().ready()
    slow, quick = world.agent(), world.agent()
    assert slow.ask() == accept_id
    pass_time(world, LATER)
    assert quick.ask() == accept_id
    assert taken(slow, accept_id)
    assert not taken(quick, accept_id)
    assert not taken(slow, accept_id)


def test_an_agent_whose_answer_was_cut_gets_the_inputs_again(world: OldWorld) -> None:
    accept_id = world.workflow().ready()
    agent = world.agent()
    assert agent.ask() == accept_id
    assert taken(agent, accept_id)
    assert taken(agent, accept_id)


def test_of_two_addresses_only_that_which_has_the_inputs_gets_them_again(world: OldWorld) -> None:
    accept_id = world.workflow().ready()
    here, there = world.agent(), world.agent(address="192.0.2.9")
    assert here.ask() == accept_id
    pass_time(world, LATER)
    assert there.ask() == accept_id
    assert taken(here, accept_id)
    assert taken(here, accept_id)
    assert not taken(there, accept_id)


def test_an_offer_that_nobody_took_is_made_to_the_next(world: OldWorld) -> None:
    accept_id = world.workflow().ready()
    first, second = world.agent(), world.agent("alice 2")
    assert first.ask() == accept_id
    assert second.ask() is None
    pass_time(world, LATER)
    assert second.ask() == accept_id
    assert not taken(first, accept_id)
    assert taken(second, accept_id)


@pytest.mark.parametrize("who", ["alice 2", "bob", "site:old-site"])
def test_nobody_else_takes_a_step_for_the_agent_that_holds_it(world: OldWorld, who: str) -> None:
    """Kills: taking the accept id for a permission."""
    workflow, agent, other = world.workflow(), world.agent(), world.agent(who)
    accept_id = workflow.ready()
    assert agent.ask() == accept_id
    for number in range(len(STEPS)):
        if number == 0:
            assert taken(agent, accept_id)
        before = (workflow.progress(accept_id), workflow.status(accept_id))
        assert not taken(other, accept_id)
        for call, more in STEPS:
            assert said(other.tell(call, accept_id, **more)) == (400, 400), call
        assert (workflow.progress(accept_id), workflow.status(accept_id)) == before
        call, more = STEPS[number]
        agent.step(call, accept_id, **more)
    assert workflow.progress(accept_id) == "got return"


def test_a_sites_own_token_serves_all_of_its_users_and_no_other_site(world: OldWorld) -> None:
    agent, stranger = world.agent("site:old-site"), world.agent("site:new-site")
    for who in ("alice", "bob"):
        accept_id = world.workflow(who).ready()
        assert stranger.ask() is None
        assert said(stranger.params(accept_id)) == (400, 400)
        assert agent.ask() == accept_id
        steps(agent, accept_id, len(STEPS))
        assert world.workflow(who).progress(accept_id) == "got return"
    refused = agent.line.post("add-calcinfo", json={})
    assert refused.status_code == 403


@pytest.mark.parametrize(
    ("listed", "unguarded", "asked", "allowed"),
    [
        ({"solve": LISTED}, True, LISTED, True),
        ({"solve": LISTED}, True, "solve", False),
        ({"solve": LISTED}, False, "rm -rf .", False),
        ({}, False, "anything: the site's manifest decides", True),
        ({}, True, LISTED, False),
    ],
)
def test_an_unguarded_site_is_asked_for_what_is_listed_and_nothing_else(
    listed: dict[str, str], asked: str, *, unguarded: bool, allowed: bool
) -> None:
    """Kills: an empty list that is no limit, before an agent that runs whatever arrives."""
    assert MintSite(commands=listed, unguarded=unguarded).allows(asked) is allowed


def test_whom_the_site_does_not_list_any_more_gets_nothing_and_tells_nothing(
    world: OldWorld,
) -> None:
    """Kills: a token of a user that goes on being the site's agent."""
    workflow, agent = world.workflow(), world.agent()
    ready = {workflow.ready(), workflow.ready()}
    held = agent.ask()
    assert held in ready
    steps(agent, held, 2)
    world.http.world.desk.sites.serve("old-site", frozenset({"bob"}))
    assert agent.ask() is None
    for accept_id in ready:
        assert not taken(agent, accept_id)
        assert agent.tell("calc-end", accept_id, result="calc end").status_code >= 400
    assert state_of(world, held) == "running"


def test_what_is_to_end_is_not_taken_again(world: OldWorld) -> None:
    """Kills: inputs for a calculation that was deleted after it was taken, before it began."""
    workflow, agent = world.workflow(), world.agent()
    accept_id = workflow.ready()
    assert agent.ask() == accept_id
    assert taken(agent, accept_id)
    assert taken(agent, accept_id)  # the answer may have been lost
    assert said(workflow.cancel(accept_id, delete="force")) == (200, 200)
    assert not taken(agent, accept_id)


CALLS = ("calc-request", "calc-params", *(call for call, _ in STEPS))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.tuples(st.sampled_from([0, 1]), st.integers(0, 2), st.sampled_from(CALLS)),
        max_size=60,
    )
)
def test_whatever_two_agents_say_in_whatever_order_each_calculation_has_one(
    said_by: list[tuple[int, int, str]],
) -> None:
    """Kills: a step that is believed of who does not hold the job, or out of its order."""
    with old_world() as world:
        workflow = world.workflow()
        agents = [world.agent("alice"), world.agent("alice 2")]
        calcs = [workflow.ready() for _ in range(3)]
        has: dict[str, int] = {}
        for who, which, call in said_by:
            accept_id, agent = calcs[which], agents[who]
            before = workflow.progress(accept_id)
            if call == "calc-request":
                agent.ask()
                continue
            if call == "calc-params":
                if taken(agent, accept_id):
                    assert has.setdefault(accept_id, who) == who
                continue
            more = dict(STEPS)[call]
            passed = said(agent.tell(call, accept_id, **more)) == (200, 200)
            assert not passed or has.get(accept_id) == who
            assert _follows(before, workflow.progress(accept_id), call if passed else "")


PROGRESS = (
    "not start",
    "sending params",
    "complete send",
    "running",
    "calc end",
    "getting return",
    "got return",
)


def _follows(before: str, after: str, call: str) -> bool:
    """Say whether the call may have led from one progress to the other, or repeats a step."""
    if not call:
        return before == after
    reached = CALLS.index(call)
    return PROGRESS.index(before) in (reached - 1, reached) and PROGRESS.index(after) == reached


# ------------------------------------------------------------------------- time


@pytest.mark.parametrize("so_far", ["registered", "waiting", "offered"])
def test_what_did_not_start_in_half_an_hour_is_expired_and_gone(
    world: OldWorld, so_far: str
) -> None:
    workflow, agent = world.workflow(), world.agent()
    accept_id = workflow.add()
    if so_far != "registered":
        workflow.allow(accept_id)
    if so_far == "offered":
        assert agent.ask() == accept_id
    pass_time(world, HALF_AN_HOUR)
    pass_time(world, LATER)
    assert state_of(world, accept_id) == "expired"
    for call in ("calc-status", "calc-progress", "get-calc-result"):
        gone = workflow.line.get(call, params={"accept_id": accept_id})
        assert said(gone) == (200, 400)
        assert "期限" in first(gone)["message"]
    stranger = world.workflow("bob").line.get("calc-status", params={"accept_id": accept_id})
    assert "期限" not in first(stranger)["message"]
    assert said(workflow.allow(accept_id)) == (400, 400)
    assert agent.ask() is None
    assert not taken(agent, accept_id)
    assert accept_id not in workflow.line.get("get-calcinfo").json()


@pytest.mark.parametrize("number", range(len(STEPS)))
def test_no_timer_ends_what_an_old_agent_holds(world: OldWorld, number: int) -> None:
    workflow, agent = world.workflow(), world.agent()
    accept_id = workflow.ready()
    assert agent.ask() == accept_id
    steps(agent, accept_id, number)
    pass_time(world, timedelta(days=3))
    assert agent.ask() is None
    for call, more in STEPS[number:]:
        agent.step(call, accept_id, **more)
    assert workflow.status(accept_id) == "completed"
    assert workflow.result(accept_id)[STDOUT] == FILE


def test_a_result_can_be_fetched_again_for_ten_minutes(world: OldWorld) -> None:
    workflow, agent = world.workflow(), world.agent()
    accept_id = workflow.ready()
    assert agent.ask() == accept_id
    steps(agent, accept_id, len(STEPS))
    files = workflow.result(accept_id)
    assert not workflow.known(accept_id)
    world.http.world.clock.move(timedelta(minutes=10))
    assert workflow.result(accept_id) == files
    world.http.world.clock.move(timedelta(seconds=1))
    gone = workflow.line.get("get-calc-result", params={"accept_id": accept_id})
    assert said(gone) == (200, 400)


# ------------------------------------------------------------------------- deleting by force


@pytest.mark.parametrize("number", range(len(STEPS) + 1))
def test_force_forgets_whatever_the_agent_has_done(world: OldWorld, number: int) -> None:
    workflow, agent = world.workflow(), world.agent()
    accept_id = workflow.ready()
    assert agent.ask() == accept_id
    steps(agent, accept_id, number)
    if 0 < number < len(STEPS):
        assert said(workflow.cancel(accept_id)) == (400, 401)
    assert said(workflow.cancel(accept_id, delete="force")) == (200, 200)
    assert not workflow.known(accept_id)
    again = workflow.line.get("get-calc-result", params={"accept_id": accept_id})
    assert said(again) == (200, 400)
    for call, more in STEPS[number:]:
        agent.tell(call, accept_id, **more)
    assert state_of(world, accept_id) == ("cancelled" if number < 3 else "succeeded")


def test_what_is_deleted_while_its_results_arrive_stays_deleted(world: OldWorld) -> None:
    """Kills: writing a note back as it was when the results began to arrive."""
    workflow, agent = world.workflow(), world.agent()
    accept_id = workflow.ready()
    assert agent.ask() == accept_id
    steps(agent, accept_id, 3)
    blobs = world.http.world.blobs
    put = blobs.put

    def deleting(space: str, frames: Sequence[Frame]) -> None:
        forced = Named(accept_id=accept_id, delete="force")
        world.http.world.desk.mint_orders.cancel("alice", forced)
        put(space, frames)

    blobs.put = deleting  # type: ignore[method-assign]
    call, more = STEPS[3]
    agent.step(call, accept_id, **more)
    assert not workflow.known(accept_id)


# ------------------------------------------------------------------------- what the operator does


def test_a_site_whose_old_paths_are_shut_is_unknown(world: OldWorld) -> None:
    workflow, agent = world.workflow(), world.agent()
    accept_id = workflow.ready()
    policy = world.http.world.policy
    mint = replace(policy.value.mint, sites={"new-site": SITES["new-site"]})
    policy.value = replace(policy.value, mint=mint)
    assert not workflow.known(accept_id)
    assert said(agent.line.get("calc-request", params={"site_id": "old-site"})) == (200, "400")


def test_what_an_old_agent_holds_it_may_end_when_its_site_gets_a_manifest(world: OldWorld) -> None:
    """Kills: stranding a calculation by the change of one setting; giving out more after it."""
    workflow, agent = world.workflow(), world.agent()
    held = workflow.ready()
    assert agent.ask() == held
    steps(agent, held, 2)
    waiting = workflow.ready()
    policy = world.http.world.policy
    sites = SITES | {"old-site": replace(SITES["old-site"], unguarded=False)}
    policy.value = replace(policy.value, mint=replace(policy.value.mint, sites=sites))
    assert said(agent.line.get("calc-request", params={"site_id": "old-site"})) == (200, "400")
    assert said(agent.params(waiting)) == (400, 400)
    for call, more in STEPS[2:]:
        agent.step(call, held, **more)
    assert workflow.status(held) == "completed"
    assert workflow.progress(waiting) == "not start"


def test_every_call_of_either_side_is_counted_for_its_site(world: OldWorld) -> None:
    workflow, agent = world.workflow(), world.agent()
    accept_id = workflow.ready()
    workflow.progress(accept_id)
    assert agent.ask() == accept_id
    steps(agent, accept_id, len(STEPS))
    workflow.result(accept_id)
    calls = {use.side: use.calls for use in world.http.world.store.mint.uses()}
    assert calls == {"workflow": 4, "agent": 7}
    meter = world.http.world.desk.meter
    assert meter.get("mint_site_calls", site="old-site", side="agent") == 7
    assert meter.get("mint_calls", call="calc-end", status="200") == 1


@pytest.mark.parametrize(
    ("who", "status"),
    [("alice", 200), ("site:old-site", 200), ("admin:root", 403), ("monitor:eye", 403)],
)
def test_settings_are_read_again_for_whoever_works_on_the_old_paths(
    world: OldWorld, who: str, status: int
) -> None:
    """Kills: a reading at the wish of anybody who has some token, or none."""
    before = len(world.http.reloads)
    assert world.line(who).post("reload-ini").status_code == status
    assert len(world.http.reloads) - before == (status == 200)
    nobody = world.line().post("reload-ini", headers={"Authorization": ""})
    assert said(nobody) == (403, "0005")
    assert len(world.http.reloads) - before == (status == 200)


def test_a_site_that_is_switched_off_gets_nothing_and_ends_what_it_holds(world: OldWorld) -> None:
    workflow, agent = world.workflow(), world.agent()
    held = workflow.ready()
    assert agent.ask() == held
    waiting = workflow.ready()
    steps(agent, held, 2)
    world.http.world.desk.sites.switch("old-site", disabled=True)
    assert said(agent.line.get("calc-request", params={"site_id": "old-site"})) == (200, "0300")
    refused = workflow.line.post("add-calcinfo", json=a_calc())
    assert refused.status_code >= 400
    assert first(refused)["reason"] == "site.disabled"
    for call, more in STEPS[2:]:
        agent.step(call, held, **more)
    assert workflow.status(held) == "completed"
    world.http.world.desk.sites.switch("old-site", disabled=False)
    assert agent.ask() == waiting


def test_a_calculation_whose_token_is_worthless_now_is_flagged_and_can_be_ended(
    world: OldWorld,
) -> None:
    """Nobody else may tell of it; without a word it would stay until somebody wonders."""
    accept_id = world.workflow().ready()
    agent = world.agent()
    assert agent.ask() == accept_id
    steps(agent, accept_id, 2)
    desk, job = world.http.world.desk, job_id_of(accept_id)
    for token in desk.tokens.tokens():
        assert desk.mint_work.orphaned([token]) == []  # it is good yet
        left = desk.mint_work.orphaned([desk.tokens.revoke(token.id)])
        assert left == ([job] if token.name == "alice" else [])
    pass_time(world, HALF_AN_HOUR)
    seen = world.http.world.job(job)
    assert (seen.state, seen.attention) == ("running", "unknown_fate")
    assert desk.sites.lost(job, "operator").state == "lost"
    assert desk.mint_work.orphaned(desk.tokens.tokens()) == []


@pytest.mark.parametrize("why", ["expired", "rotated", "joined"])
def test_a_calculation_is_flagged_whatever_made_its_token_worthless(
    world: OldWorld, why: str
) -> None:
    """Kills: a calculation that stays `running` for ever, without a word, but after `revoke`."""
    taken_by, other = ("alice 2", "alice") if why == "expired" else ("site:old-site", "alice")
    jobs = []
    for who in (taken_by, other):
        accept_id = world.workflow().ready()
        agent = world.agent(who)
        assert agent.ask() == accept_id
        steps(agent, accept_id, 2)
        jobs.append(job_id_of(accept_id))
    inner = world.http.world
    desk = inner.desk
    reaper = desk.reaper  # one for as long as a broker serves
    reaper.tick()
    assert [inner.job(job).attention for job in jobs] == [None, None]
    match why:
        case "expired":
            principal = desk.tokens.authenticate(world.token(taken_by))
            [token] = [t for t in desk.tokens.tokens() if t.id == principal.token_id]
            end = replace(token, expires_at=inner.clock.now() + HALF_AN_HOUR)
            inner.store.directory.put_token(end)
        case "rotated":
            desk.tokens.rotate("old-site")
        case "joined":
            secret = make_token(Role.SITE, b"another one".ljust(32)).reveal()
            invitation = desk.tokens.authenticate(inner.token(Role.INVITATION, "old-site"))
            message = JoinSite(instance=AGENT, token_hash=hash_token(secret))
            desk.tokens.join(invitation, message)
    inner.clock.move(HALF_AN_HOUR)
    reaper.tick()
    assert [inner.job(job).attention for job in jobs] == ["unknown_fate", "site_unreachable"]
