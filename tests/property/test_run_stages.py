"""The stages of a run at its site, under any order of steps."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sekisho.domain.errors import InvalidTransition
from sekisho.domain.run import STAGES, Run, Stage, advance

NOW = datetime(2026, 1, 1, tzinfo=UTC)
RUN = Run(job="job_" + "0" * 26, epoch=1, submitter="ann", request=b"", taken_at=NOW)
FINAL = {Stage.RETURNED, Stage.REFUSED, Stage.FAILED, Stage.CANCELLED, Stage.LOST, Stage.DROPPED}
#: In which order a run that meets no trouble goes.
PLAIN = ["taken", "accepted", "staged", "submitted", "running", "ended", "collected", "returned"]


def walk(stages: list[Stage]) -> list[Run]:
    runs = [RUN]
    for stage in stages:
        try:
            runs.append(advance(runs[-1], stage))
        except InvalidTransition:
            runs.append(runs[-1])
    return runs


def test_a_run_without_trouble_goes_the_plain_way() -> None:
    assert [r.stage.value for r in walk([Stage(s) for s in PLAIN[1:]])] == PLAIN


def test_every_stage_is_reached_and_the_final_ones_are_these() -> None:
    reached = {Stage.TAKEN}.union(*STAGES.values())
    assert reached == set(Stage)
    assert {stage for stage in Stage if stage.final} == FINAL


@given(st.lists(st.sampled_from(Stage), max_size=60))
def test_a_final_stage_is_never_left(stages: list[Stage]) -> None:
    """Kills: a row for a final stage."""
    runs = walk(stages)
    ends = [run.stage for run in runs if run.stage.final]
    assert len(set(ends)) <= 1


@given(st.lists(st.sampled_from(Stage), max_size=60))
def test_p3_nothing_is_collected_that_was_not_seen_to_end(stages: list[Stage]) -> None:
    """Kills: a short cut from submitted or running to collected; a return without a collection."""
    seen = [run.stage for run in walk(stages)]
    for later, earlier in (
        (Stage.RETURNED, Stage.COLLECTED),
        (Stage.COLLECTED, Stage.ENDED),
        (Stage.ENDED, Stage.RUNNING),
        (Stage.RUNNING, Stage.SUBMITTED),
        (Stage.SUBMITTED, Stage.STAGED),
    ):
        if later in seen:
            assert earlier in seen[: seen.index(later)]


@given(st.lists(st.sampled_from(Stage), max_size=60))
def test_once_an_end_was_recorded_the_command_is_not_started_again(stages: list[Stage]) -> None:
    """Kills: a way back from ended or collected."""
    seen = [run.stage for run in walk(stages)]
    if Stage.ENDED in seen:
        assert not {Stage.ACCEPTED, Stage.STAGED, Stage.SUBMITTED, Stage.RUNNING} & set(
            seen[seen.index(Stage.ENDED) :]
        )


@pytest.mark.parametrize("stage", sorted(FINAL))
def test_a_run_is_settled_when_the_broker_knows(stage: Stage) -> None:
    """Kills: forgetting a run whose end is still owed to the broker."""
    run = replace(RUN, stage=stage)
    assert run.settled == (stage is Stage.DROPPED)
    assert replace(run, told=(stage,)).settled


def test_a_run_that_goes_on_is_not_settled_whatever_was_told() -> None:
    assert not replace(RUN, stage=Stage.RUNNING, told=tuple(Stage)).settled


def test_a_step_takes_its_changes_along_and_a_wrong_one_names_both_stages() -> None:
    assert advance(RUN, Stage.ACCEPTED, command="solve").command == "solve"
    with pytest.raises(InvalidTransition) as refusal:
        advance(RUN, Stage.RUNNING)
    assert (refusal.value.params["state"], refusal.value.params["event"]) == ("taken", "running")
