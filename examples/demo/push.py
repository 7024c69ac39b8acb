"""The story in push mode: the author comes by ssh, to a gate and then to a host without one."""

from __future__ import annotations

import json
from pathlib import Path

from examples.demo import proof
from examples.demo.author import OUTPUTS, Answer, refusal_of
from examples.demo.chapters import Chapters, by_name, listed
from examples.demo.engineer import COMMAND
from examples.demo.host import Host, sockets
from examples.demo.operator import SITE, USER
from examples.demo.places import Places
from examples.demo.screen import Screen
from examples.demo.shell import Shell
from examples.demo.story import Told
from examples.demo.way import BARE, Way

#: The solver's deck, which holds the secret mesh.
DECK = "analysis.inp"


class PushStory:
    """Tells the story on ``screen``, with all files in ``places``."""

    def __init__(self, screen: Screen, shell: Shell, places: Places) -> None:
        self._screen = screen
        self._shell = shell
        self._places = places
        self._chapters = Chapters(screen, shell, places)
        self._host = Host(shell, places.site, places.port)
        self._way = Way(shell, places)

    def tell(self, solver: str) -> Told:
        """Tell all of it; whether it went well is in the screen's checks."""
        self._places.make()
        with sockets() as place:
            self._shell.give(XDG_RUNTIME_DIR=str(place))
            try:
                told = self._tell(solver)
            except BaseException:
                self._host.abandon(self._places.work_base, self._places.bare_base)
                raise
            finally:
                self._way.disconnect(place)
            self._chapters.stop("ssh_stopped", lambda: self._screen.say("carrier_waits"))
        return told

    def _tell(self, solver: str) -> Told:
        canaries = self._set_up_site()
        with proof.Watch(self._places.site) as watch:
            answer = self._compute(solver)
            life = self._chapters.use(answer)
            self._chapters.try_more(solver)
            self._screen.check("one_login", ok=self._host.logins == 1, logins=self._host.logins)
            self._cut(solver)
        self._try_key(canaries)
        self._chapters.look_at_site(answer.job)
        self._look_for_secrets(canaries)
        self._look_at_sockets(watch)
        self._do_without_gate(solver, canaries)
        return Told(answer, life)

    def _set_up_site(self) -> list[str]:
        self._screen.section("ssh_site")
        canaries = self._chapters.engineer.make_secrets()
        self._way.make_keys()
        line = self._chapters.engineer.open_gate()
        self._screen.output([line])
        bound = line.startswith("restrict,command=") and f"--submitter {USER}" in line
        self._screen.check("key_bound", ok=bound and line.count("ssh-ed25519") == 1, user=USER)
        self._screen.say("manifest")
        self._host.start()
        return canaries

    def _compute(self, solver: str) -> Answer:
        self._screen.section("workflow")
        self._screen.output(self._way.set_up(self._host.public_key))
        check = self._way.check(SITE)
        self._screen.output(check.out.splitlines())
        self._screen.check("way_checked", ok=check.status == 0)
        answer = self._chapters.compute(solver)
        self._screen.say("ssh_timing", total=answer.seconds)
        return answer

    def _cut(self, solver: str) -> None:
        """Submit a job, break every connection, and go on."""
        self._screen.section("ssh_cut")
        job = self._way.submit(COMMAND, solver)
        cut = self._host.cut()
        answer = self._way.wait(job, "after-the-cut")
        whole = answer.files == by_name(OUTPUTS) and cut > 0
        starts = self._chapters.engineer.log_of(job).count("started")
        self._screen.check("cut_survived", ok=whole and starts == 1, files=listed(answer.files))

    def _try_key(self, canaries: list[str]) -> None:
        self._screen.section("ssh_key")
        for tried in self._way.try_key(SITE, canaries[-1]):
            self._screen.check(f"key_{tried.name}", ok=not tried.took)

    def _look_for_secrets(self, canaries: list[str]) -> None:
        """Search the author's side, and show that the search can find."""
        outside = (self._places.workflow,)
        self._chapters.look_for_secrets(canaries, outside, "ssh_no_leak")
        result = (self._places.results / OUTPUTS[0]).read_text("utf-8").splitlines()[1]
        found = proof.files_with(result, outside)
        self._screen.check("found_result", ok=bool(found), file=OUTPUTS[0])

    def _look_at_sockets(self, watch: proof.Watch) -> None:
        self._screen.section("sockets")
        ok = watch.looks > 0 and not watch.seen
        self._screen.check("no_port", ok=ok, looks=watch.looks, found=watch.seen)
        ports = proof.listening((self._host.pid,))
        self._screen.check("ssh_port_found", ok=len(ports) == 1, port=self._places.port)

    def _do_without_gate(self, solver: str, canaries: list[str]) -> None:
        """Show what a host without a gate gives: all that the program left, and the whole login."""
        self._screen.section("ssh_bare")
        self._chapters.engineer.agree_on_program()
        done = self._way.solve(solver)
        told = json.loads(done.out)
        files = {Path(name).name for name in told["files"]}
        whole = done.status == 0 and files > {*OUTPUTS, DECK, "remote_program_exec.log"}
        self._screen.check("bare_all", ok=whole, files=len(files))
        other = self._way.solve(solver, command="shell")
        self._chapters.expect_refusal("bare_bound", "bare.no_program", refusal_of(other))
        word = self._way.solve("auto; touch ../../made", into="bare-odd")
        made = list(self._places.root.rglob("made"))
        self._screen.check("bare_word", ok=word.status != 0 and not made, status=word.status)
        back = (self._places.workflow / "bare-results",)
        found = any(proof.files_with(text, back) for text in canaries)
        self._screen.check("bare_found", ok=found)
        tried = self._way.try_key(BARE, canaries[-1])
        self._screen.check("plain_key", ok=all(attempt.took for attempt in tried))
