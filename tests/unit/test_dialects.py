"""What batch systems are told, and what their answers mean, by transcripts.

Those of Slurm 22.05 and its Torque commands were recorded, and Grid Engine 8.1 is as it answered;
the others follow the forms in their manuals and wait for a site to confirm them.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from sekisho.adapters.hosts.quote import shell_words
from sekisho.adapters.schedulers.control import SCRIPT_TEXT, launch_text
from sekisho.adapters.schedulers.dialect import (
    Dialect,
    State,
    Submission,
    complaint,
    job_name,
    why_in,
)
from sekisho.adapters.schedulers.dialects import DIALECTS
from sekisho.domain.errors import Unavailable
from sekisho.domain.launch import LaunchLimits
from sekisho.domain.resources import Resources
from sekisho.site.host import Answer
from tests.launching import a_launch

ASKED = Resources(
    queue="normal",
    account="g01",
    nodes=2,
    tasks=4,
    cpus=8,
    memory=3 * (1 << 30) + 1,
    gpus=1,
    licences=("solver=2",),
    directives=("--site-word",),
)
SUBMISSION = Submission(
    name="s0123456789abcd", directory="/work/j/control", resources=ASKED, wall_time=3725
)
PLAIN = replace(SUBMISSION, resources=Resources())

LINES = {
    "slurm": "sbatch --site-word --partition=normal --account=g01 --nodes=2 --ntasks-per-node=4 "
    "--cpus-per-task=8 --mem=3073M --gres=gpu:1 --licenses=solver=2 --time=63 --parsable "
    "--no-requeue --export=NIL --open-mode=append --job-name=s0123456789abcd "
    "--chdir=/work/j/control --input=/dev/null --output=batch.log --error=batch.log script",
    "pbs": "qsub --site-word -q normal -A g01 "
    "-l select=2:ncpus=32:mpiprocs=4:mem=3073mb:ngpus=1 -l solver=2 -l walltime=01:02:05 "
    "-N s0123456789abcd -r n -m n -S /bin/sh -o /dev/null -e /dev/null /work/j/control/script",
    "torque": "qsub --site-word -q normal -A g01 -l nodes=2:ppn=32:gpus=1 -l mem=6146mb "
    "-l solver=2 -l walltime=01:02:05 "
    "-N s0123456789abcd -r n -m n -S /bin/sh -o /dev/null -e /dev/null /work/j/control/script",
    "sge": "qsub --site-word -q normal -P g01 -l h_rt=01:02:05 -l h_vmem=3073M -l gpu=1 "
    "-l solver=2 -terse -r n -m n -S /bin/sh -wd /work/j/control -i /dev/null -j y "
    "-o /work/j/control/batch.log -N s0123456789abcd /work/j/control/script",
    "pjsub": "pjsub --site-word -g g01 "
    "-L rscgrp=normal,node=2,node-mem=3073Mi,gpu=1,elapse=01:02:05,solver=2 --mpi proc=8 "
    "--norestart -j -o /work/j/control/batch.log -N s0123456789abcd /work/j/control/script",
}
SPARE = {
    "slurm": "--time=63 --parsable",
    "pbs": "qsub -l walltime=01:02:05 -N",
    "torque": "qsub -l walltime=01:02:05 -N",
    "sge": "qsub -l h_rt=01:02:05 -terse",
    "pjsub": "pjsub -L elapse=01:02:05 --norestart",
}


#: What an array of 20 adds, with four at once where that can be said.
ARRAYS = {
    "slurm": "--array=0-19%4",
    "pbs": "-J 0-19%4 -r y",
    "torque": "-t 0-19%4 -r n",
    "sge": "-t 1-20 -tc 4",
    "pjsub": "--bulk --sparam 0-19",
}


@pytest.mark.parametrize("name", ARRAYS)
def test_an_array_is_asked_for_with_its_numbers_and_an_array_of_one_is_a_plain_job(
    name: str,
) -> None:
    dialect = DIALECTS[name]
    limited = replace(SUBMISSION, resources=replace(ASKED, elements=20, at_once=4))
    line = " ".join(dialect.submit(dialect.commands[0], replace(limited, elements=20)))
    assert f" {ARRAYS[name]} " in line
    alone = replace(limited, resources=replace(ASKED, elements=1, at_once=4))
    assert " ".join(dialect.submit(dialect.commands[0], alone)) == LINES[name]
    unlimited = replace(limited, resources=replace(ASKED, elements=2), elements=2)
    line = " ".join(dialect.submit(dialect.commands[0], unlimited))
    assert not re.search("%|-tc|None", line)


#: What each dialect adds to a plain job for one thing that is asked for, alone.
ALONE = {
    "slurm": {
        "nodes": "--nodes=2",
        "tasks": "--ntasks-per-node=4",
        "cpus": "--cpus-per-task=8",
        "memory": "--mem=1024M",
        "gpus": "--gres=gpu:3",
    },
    "pbs": {
        "nodes": "select=2",
        "tasks": "select=1:ncpus=4:mpiprocs=4",
        "cpus": "select=1:ncpus=8",
        "memory": "select=1:mem=1024mb",
        "gpus": "select=1:ngpus=3",
    },
    "torque": {
        "nodes": "nodes=2:ppn=1",
        "tasks": "nodes=1:ppn=4",
        "cpus": "nodes=1:ppn=8",
        "memory": "mem=1024mb",
        "gpus": "nodes=1:ppn=1:gpus=3",
    },
    "sge": {"nodes": "", "tasks": "", "cpus": "", "memory": "h_vmem=1024M", "gpus": "gpu=3"},
    "pjsub": {
        "nodes": "node=2,elapse=01:02:05",
        "tasks": "--mpi proc=4",
        "cpus": "vnode-core=8,elapse=01:02:05",
        "memory": "node-mem=1024Mi,elapse=01:02:05",
        "gpus": "gpu=3,elapse=01:02:05",
    },
}
AMOUNTS = {"nodes": 2, "tasks": 4, "cpus": 8, "memory": 1 << 30, "gpus": 3}


@pytest.mark.parametrize("amount", AMOUNTS)
@pytest.mark.parametrize("name", ALONE)
def test_one_thing_that_is_asked_for_adds_its_own_words_alone(name: str, amount: str) -> None:
    dialect = DIALECTS[name]
    asked = replace(PLAIN, resources=Resources(**{amount: AMOUNTS[amount]}))  # type: ignore[arg-type]
    line, plain = (dialect.submit(dialect.commands[0], job) for job in (asked, PLAIN))
    assert [word for word in line if word not in plain] == ALONE[name][amount].split()


def test_every_dialect_of_the_manifest_is_one() -> None:
    assert DIALECTS.keys() == LINES.keys()


@pytest.mark.parametrize("name", LINES)
def test_what_is_asked_for_is_in_the_line_and_nothing_else(name: str) -> None:
    dialect = DIALECTS[name]
    submit, _, cancel = dialect.commands
    assert " ".join(dialect.submit(submit, SUBMISSION)) == LINES[name]
    assert SPARE[name] in " ".join(dialect.submit(submit, PLAIN))
    wrapped = dialect.submit(("/opt/site/qsub2", "-x"), PLAIN)
    assert wrapped[:2] == ("/opt/site/qsub2", "-x")
    assert len(cancel) == 1


@pytest.mark.parametrize(
    ("name", "stdout", "identity"),
    [
        ("slurm", "4711\n", "4711"),
        ("slurm", "4711;main\n", "4711"),
        ("slurm", "Submitted batch job 4711\n", ""),
        ("slurm", "Welcome!\n4711\n", ""),
        ("slurm", "4711\n4712\n", ""),
        ("slurm", "", ""),
        ("pbs", "4711.pbs01\n", "4711.pbs01"),
        ("pbs", "4711[].pbs01\n", "4711[].pbs01"),
        ("pbs", "4711[3].pbs01\n", ""),
        ("torque", "4711\n", "4711"),
        ("torque", "4711[]\n", "4711[]"),
        ("torque", "qsub: waiting\n4711\n", ""),
        ("sge", "4711\n", "4711"),
        ("sge", "4711.1-20:1\n", "4711"),
        ("sge", "4711.1-20:2\n", ""),
        ("sge", "Your job 4711 has been submitted\n", ""),
        ("pjsub", "[INFO] PJM 0000 pjsub Job 4711 submitted.\n", "4711"),
        ("pjsub", "[ERR.] PJM 0007 pjsub Staging file error.\n", ""),
    ],
)
def test_an_id_is_read_strictly_or_not_at_all(name: str, stdout: str, identity: str) -> None:
    assert DIALECTS[name].submitted(stdout) == identity


PBS_TWO = """\
Job Id: 12.pbs01
    Job_Name = s0123456789abcd
    Job_Owner = sekisho@login1
    job_state = E
    queue = normal
    comment = Job run at Sat Nov 21
\t and more of it
    Variable_List = PBS_O_HOME=/home/sekisho,
\tjob_state = Q

Job Id: 13.pbs01
    Job_Name = sfedcba98765432
    job_state = Q
"""
SLURM_TORQUE = """\
Job Id:\t1
\tJob_Name = sabc
\tJob_Owner = root@localhost
\tjob_state = C
\tqueue = main
\tqtime = Sun Nov 22 00:47:31 2026
\texec_host = vm/1
\tResource_List.walltime = 71582788:15:00


"""
SGE_TWO = """\
<?xml version='1.0'?>
<job_info  xmlns:xsd="http://example.org/qstat.xsd">
  <queue_info>
    <job_list state="running">
      <JB_job_number>3</JB_job_number>
      <JAT_prio>0.55500</JAT_prio>
      <JB_name>s0123456789abcd</JB_name>
      <JB_owner>sekisho</JB_owner>
      <state>r</state>
      <queue_name>main.q@localhost</queue_name>
    </job_list>
  </queue_info>
  <job_info>
    <job_list state="pending">
      <JB_job_number>4</JB_job_number>
      <JB_name>sfedcba98765432</JB_name>
      <state>hqw</state>
    </job_list>
  </job_info>
</job_info>
"""
PJSTAT = """\
H,JOB_ID,JOB_NAME,ST
,21,s0123456789abcd,RNO
,22,sfedcba98765432,QUE
,23,other,EXT
"""
PBS_ARRAY = """\
Job Id: 17[].pbs01
    Job_Name = s0123456789abcd
    job_state = B
    array = True
"""
TORQUE_ARRAY = """\
Job Id: 17[].server
    Job_Name = s0123456789abcd
    job_state = Q

Job Id: 17[3].server
    Job_Name = s0123456789abcd-3
    job_state = R
"""
SGE_ARRAY = """\
<?xml version='1.0'?>
<job_info>
  <queue_info>
    <job_list state="running">
      <JB_job_number>3</JB_job_number>
      <JB_name>s0123456789abcd</JB_name>
      <state>r</state>
      <tasks>2</tasks>
    </job_list>
  </queue_info>
  <job_info>
    <job_list state="pending">
      <JB_job_number>3</JB_job_number>
      <JB_name>s0123456789abcd</JB_name>
      <state>qw</state>
      <tasks>3-20:1</tasks>
    </job_list>
  </job_info>
</job_info>
"""
PJSTAT_BULK = """\
H,JOB_ID,JOB_NAME,ST
,21,s0123456789abcd,RUN
,21[4],s0123456789abcd,QUE
"""
A, B = "s0123456789abcd", "sfedcba98765432"
W, R, E = State.WAITING, State.ALIVE, State.ENDED
TABLES: list[tuple[str, str, int, list[tuple[str, str, State, str | None]]]] = [
    ("slurm", f"1|PENDING|{A}\n2|COMPLETING|{B}\n", 0, [("1", A, W, None), ("2", B, R, None)]),
    ("slurm", f"1|REQUEUED|{A}\n", 0, [("1", A, W, None)]),
    ("slurm", f"1|TIMEOUT|{A}\n", 0, [("1", A, E, "limit.time")]),
    ("slurm", f"1|OUT_OF_MEMORY|{A}\n", 0, [("1", A, E, "limit.memory")]),
    ("slurm", f"1|PREEMPTED|{A}\n", 0, [("1", A, E, "scheduler.preempted")]),
    ("slurm", f"1|NODE_FAIL|{A}\n", 0, [("1", A, E, "scheduler.node_failed")]),
    ("slurm", f"1|SUSPENDED|{A}\n", 0, [("1", A, R, None)]),
    ("slurm", f"1|SOMETHING_NEW|{A}\n", 0, [("1", A, R, None)]),
    ("slurm", "", 0, []),
    ("pbs", PBS_TWO, 0, [("12.pbs01", A, R, None), ("13.pbs01", B, W, None)]),
    ("pbs", "", 0, []),
    ("torque", SLURM_TORQUE, 0, [("1", "sabc", E, None)]),
    ("torque", "", 153, []),
    ("sge", SGE_TWO, 0, [("3", A, R, None), ("4", B, W, None)]),
    ("sge", "<job_info>\n</job_info>\n", 0, []),
    ("pjsub", PJSTAT, 0, [("21", A, R, None), ("22", B, W, None), ("23", "other", E, None)]),
    ("pjsub", "H,JOB_ID,JOB_NAME,ST\n", 0, []),
    ("slurm", f"1|PENDING|{A}\n1|RUNNING|{A}\n", 0, [("1", A, W, None), ("1", A, R, None)]),
    ("pbs", PBS_ARRAY, 0, [("17[].pbs01", A, R, None)]),
    ("torque", TORQUE_ARRAY, 0, [("17[].server", A, W, None), ("17[].server", A, R, None)]),
    ("sge", SGE_ARRAY, 0, [("3", A, R, None), ("3", A, W, None)]),
    ("pjsub", PJSTAT_BULK, 0, [("21", A, R, None), ("21", A, W, None)]),
]


@pytest.mark.parametrize(("name", "stdout", "code", "rows"), TABLES)
def test_a_table_of_jobs_is_read(
    name: str, stdout: str, code: int, rows: list[tuple[str, str, State, str | None]]
) -> None:
    seen = DIALECTS[name].rows(Answer(code, stdout.encode(), b""))
    assert [(row.id, row.name, row.state, row.why) for row in seen] == rows


HELD = [
    ("slurm", f"1|PENDING|{A}|JobHeldAdmin\n"),
    ("slurm", f"1|PENDING|{A}|JobHeldUser\n"),
    ("slurm", f"1|PENDING|{A}|launch failed requeued held\n"),
    ("slurm", f"1|PENDING|{A}|DependencyNeverSatisfied\n"),
    ("pbs", PBS_TWO.replace("job_state = E", "job_state = H")),
    ("sge", SGE_TWO.replace("<state>r</state>", "<state>Eqw</state>")),
    ("sge", SGE_TWO.replace("<state>r</state>", "<state>hqw</state>")),
    ("pjsub", PJSTAT.replace("RNO", "HLD")),
]
GETS_ON = [
    ("slurm", f"1|PENDING|{A}|Resources\n"),
    ("slurm", f"1|PENDING|{A}|Priority\n"),
    ("slurm", f"1|PENDING|{A}|PartitionDown\n"),
    ("slurm", f"1|RUNNING|{A}|None\n"),
    ("pbs", PBS_TWO.replace("job_state = E", "job_state = Q")),
    ("sge", SGE_TWO.replace("<state>r</state>", "<state>qw</state>")),
    ("sge", SGE_TWO),
    ("pjsub", PJSTAT.replace("RNO", "QUE")),
]


@pytest.mark.parametrize(
    ("name", "stdout", "held"),
    [*((*each, True) for each in HELD), *((*each, False) for each in GETS_ON)],
)
def test_a_job_that_waits_for_somebody_is_told_from_one_that_waits_for_its_turn(
    name: str, stdout: str, *, held: bool
) -> None:
    rows = DIALECTS[name].rows(Answer(0, stdout.encode(), b""))
    assert next(row for row in rows if row.name == A).held is held


def test_jobs_that_are_gone_are_no_fault_of_the_others() -> None:
    said = b"qstat: Unknown Job Id 99.pbs01\n"
    rows = DIALECTS["pbs"].rows(Answer(153, PBS_TWO.encode(), said))
    assert [row.id for row in rows] == ["12.pbs01", "13.pbs01"]


STRANGE = [
    ("slurm", "", 1),
    ("slurm", "slurm_load_jobs error: Unable to contact slurm controller\n", 0),
    ("slurm", f"1|RUNNING|{A}\n2|RUNN", 0),
    ("slurm", "JOBID PARTITION NAME\n", 0),
    ("pbs", "Job Id: 12.pbs01\n    Job_Name = x\n", 0),
    ("pbs", "Welcome\n" + PBS_TWO, 0),
    ("pbs", "Connection timed out\n", 255),
    ("sge", "", 0),
    ("sge", SGE_TWO[:-14], 0),
    ("sge", SGE_TWO.replace("<state>r</state>", ""), 0),
    ("pjsub", "", 0),
    ("pjsub", PJSTAT.replace(",RNO", ""), 0),
    ("pjsub", PJSTAT, 1),
    ("pjsub", PJSTAT_BULK.replace("[4]", "[4-9]"), 0),
]


@pytest.mark.parametrize(("name", "stdout", "code"), STRANGE)
def test_a_table_that_is_not_understood_says_nothing(name: str, stdout: str, code: int) -> None:
    with pytest.raises(Unavailable) as fault:
        DIALECTS[name].rows(Answer(code, stdout.encode(), b""))
    assert fault.value.code == "scheduler.strange"


#: What Slurm says of every limit of an account or a quality of service; a line before says which.
POLICY = (
    "sbatch: error: Batch job submission failed: Job violates accounting/QOS policy "
    "(job submit limit, user's size and/or time limits)"
)
SLURM_FULL = (
    *("QOSMaxSubmitJobPerUserLimit", "QOSMaxSubmitJobPerAccountLimit", "QOSGrpSubmitJobsLimit"),
    *("AssocMaxSubmitJobLimit", "AssocGrpSubmitJobsLimit"),
)
#: These do not pass by waiting.
SLURM_TOO_MUCH = ("QOSMaxWallDurationPerJobLimit", "AssocMaxCpuPerJobLimit", "QOSMinGRES")
COMPLAINTS = [
    ("slurm", "sbatch: error: Unable to contact slurm controller (connect failure)", "away"),
    ("slurm", "sbatch: error: Batch job submission failed: Socket timed out", "away"),
    ("slurm", "sbatch: error: Slurm temporarily unable to accept job, sleeping", "full"),
    ("slurm", "sbatch: error: QOSMaxSubmitJobPerUserLimit", "full"),
    *(("slurm", f"sbatch: error: {limit}\n{POLICY}", "full") for limit in SLURM_FULL),
    *(("slurm", f"sbatch: error: {limit}\n{POLICY}", None) for limit in SLURM_TOO_MUCH),
    ("slurm", POLICY, "full"),
    ("slurm", "sbatch: error: invalid partition specified: nope", None),
    ("pbs", "qsub: would exceed queue generic's per-user limit", "full"),
    ("pbs", "Connection refused\nqsub: cannot connect to server pbs01 (errno=15010)", "away"),
    ("pbs", "qsub: Unknown queue", None),
    ("torque", "qsub: submit error (Maximum number of jobs already in queue)", "full"),
    ("torque", "Communication failure.", "away"),
    ("sge", "job rejected: only 10 jobs are allowed per user (current job count: 10)", "full"),
    ("sge", "error: commlib error: got select error (Connection refused)", "away"),
    ("sge", 'Unable to run job: unknown queue "nope".', None),
    ("pjsub", "[ERR.] PJM 0057 pjsub The accept limit was reached.", "full"),
    ("pjsub", "[ERR.] PJM 0003 pjsub The system is busy.", "away"),
    ("pjsub", "[ERR.] PJM 0054 pjsub rscgrp=nope does not exist.", None),
]


#: As Slurm 22.05 tells them, cut to what bears on submissions and its neighbours.
SLURM_LIMITS = """\
Current Association Manager state

Association Records

ClusterName=trial Account=a UserName= Partition= Priority=0 ID=3
    ParentAccount=root(1) Lft=2 DefAssoc=No
    GrpSubmitJobs=6(0) GrpWall=N(0.00)
    MaxJobs= MaxJobsAccrue= MaxSubmitJobs=7(8) MaxWallPJ=
ClusterName=trial Account=root UserName=ann(1001) Partition= Priority=0 ID=2
    GrpSubmitJobs=N(0) GrpWall=N(0.00)
    MaxJobs=3(0) MaxJobsAccrue= MaxSubmitJobs= MaxWallPJ=

QOS Records

QOS=normal(1)
    GrpJobs=N(0) GrpJobsAccrue=N(0) GrpSubmitJobs=N(8) GrpWall=N(0.00)
    Account Limits
      a
        MaxJobsPA=N(0) MaxJobsAccruePA=N(0) MaxSubmitJobsPA=N(8)
    User Limits
      1001
        MaxJobsPU=N(0) MaxJobsAccruePU=N(0) MaxSubmitJobsPU=9(8)
QOS=long(2)
    User Limits
      1001
        MaxJobsPU=N(0) MaxJobsAccruePU=N(0) MaxSubmitJobsPU=40(0)
QOS=shut(3)
    GrpJobs=N(0) GrpJobsAccrue=N(0) GrpSubmitJobs=0(0) GrpWall=N(0.00)
"""


@pytest.mark.parametrize(
    ("said", "most"),
    [
        ("sbatch: error: QOSMaxSubmitJobPerUserLimit", 40),  # of any of the two that it may be
        ("sbatch: error: QOSMaxSubmitJobPerAccountLimit", None),
        ("sbatch: error: QOSGrpSubmitJobsLimit", None),  # shut for now
        ("sbatch: error: AssocMaxSubmitJobLimit", 7),
        ("sbatch: error: AssocGrpSubmitJobsLimit", 6),
        ("sbatch: error: Slurm temporarily unable to accept job, sleeping", None),
    ],
)
def test_slurms_limits_are_those_of_the_kind_that_it_complains_of(
    said: str, most: int | None
) -> None:
    limits = DIALECTS["slurm"].limits
    assert limits is not None
    assert limits.most(f"{said}\n{POLICY}", SLURM_LIMITS) == most
    assert limits.most(said, "") is None


def test_the_limits_are_asked_for_beside_the_status_command() -> None:
    limits = DIALECTS["slurm"].limits
    assert limits is not None
    assert limits.ask(("/opt/slurm/bin/squeue",), "ann") == (
        *("/opt/slurm/bin/scontrol", "show", "assoc_mgr", "flags=assoc,qos", "users=ann"),
    )


@pytest.mark.parametrize(("name", "said", "kind"), COMPLAINTS)
def test_a_complaint_is_of_its_kind(name: str, said: str, kind: str | None) -> None:
    found = complaint(DIALECTS[name], Answer(1, b"", said.encode()))
    assert (found.code if found else None) == (kind and f"scheduler.{kind}")


def test_a_command_that_is_not_there_is_told_as_such() -> None:
    for dialect in DIALECTS.values():
        found = complaint(dialect, Answer(127, b"", b"No such file or directory"))
        assert found is not None
        assert found.code == "scheduler.command"


@pytest.mark.parametrize(
    ("log", "why"),
    [
        ("slurmstepd: error: Exceeded job memory limit", "limit.memory"),
        ("slurmstepd: error: Detected 1 oom_kill event in StepId=7.batch.", "limit.memory"),
        ("slurmstepd: *** JOB 7 ON n1 CANCELLED AT 2026-11-22 DUE TO TIME LIMIT ***", "limit.time"),
        ("", None),
    ],
)
def test_what_a_batch_system_writes_into_the_log_is_a_reason(log: str, why: str | None) -> None:
    assert why_in(log) == why


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=lambda dialect: dialect.name)
def test_no_dialect_lets_a_job_start_again_by_itself(dialect: Dialect) -> None:
    line = " ".join(dialect.submit(dialect.commands[0], PLAIN))
    assert "--no-requeue" in line or "-r n" in line or "--norestart" in line
    assert ("--export=NIL" in line) == (dialect.name == "slurm")
    assert "-V" not in line.split()


def test_a_name_is_short_harmless_and_one_for_each_token() -> None:
    names = {job_name(f"token-{n:08}") for n in range(1000)}
    assert len(names) == 1000
    assert all(len(name) == 15 and name.isalnum() and name[0] == "s" for name in names)


def test_no_text_of_a_user_is_in_the_script_and_every_word_is_quoted(tmp_path: Path) -> None:
    nasty = ("/bin/echo", "a b", "$(touch x)", "'; rm -rf /", "\n#SBATCH --uid=0", "`id`", "é")
    limits = LaunchLimits(max_file_bytes=4096, max_open_files=64, max_processes=9)
    spec = a_launch(tmp_path, *nasty, env={"CALC_DIR": "/w", "N": "\n#PBS -q root"}, limits=limits)
    text = launch_text(spec)
    assert shell_words(nasty) in text
    assert shell_words(("N=\n#PBS -q root",)) in text
    assert "ulimit -f 8 ||" in text
    assert "ulimit -n 64 ||" in text
    assert " '9' '--' " in text
    assert "touch" not in SCRIPT_TEXT
    assert "#SBATCH" not in SCRIPT_TEXT
    assert "#PBS" not in SCRIPT_TEXT
