"""The broker's operator: sets the broker up, invites the site, gives the author a token."""

from __future__ import annotations

import http.client
import json
import os
import ssl
import time
from typing import Any

from examples.demo.certificate import make_certificates
from examples.demo.places import Places
from examples.demo.shell import DemoFault, Ended, Person, Shell

SITE = "works"
USER = "taro"
SETTINGS = ("-c", "broker.toml")
_READY_SECONDS = 30.0
_LOOK_SECONDS = 0.05


class Operator:
    """What the operator types."""

    def __init__(self, shell: Shell, places: Places) -> None:
        self._shell = shell
        self._places = places
        self._who = Person("operator", places.broker)

    def set_up(self) -> None:
        """Make the broker's data, with a certificate of its own authority."""
        make_certificates(self._places.broker, (self._places.site, self._places.workflow))
        tls = ("--tls-cert", "server.pem", "--tls-key", "server.key")
        port = str(self._places.port)
        self._type("broker", "init", ".", "--port", port, *tls, settings=())

    def invite(self) -> None:
        """Add the site; its one-time invitation goes to the engineer, the token to the author."""
        secret = self._type("broker", "site", "add", SITE, "--user", USER).out
        invitation = self._places.site / "invitation"
        invitation.touch(mode=0o600)
        invitation.write_text(secret, encoding="ascii")
        token = "author.token"  # noqa: S105 (a file's name)
        self._type(
            "broker", "token", "create", "--role", "submitter", "--user", USER, "--to", token
        )
        os.replace(self._places.broker / token, self._places.workflow / "token")  # noqa: PTH105

    def serve(self) -> int:
        """Start the broker and wait until it answers; return its process id."""
        log = self._places.broker / "broker.log"
        pid = self._shell.start(self._who, ("sekisho", "broker", "serve", *SETTINGS), log)
        until = time.monotonic() + _READY_SECONDS
        while not self._answers():
            if time.monotonic() > until or not self._shell.alive(pid):
                raise DemoFault("the broker does not serve\n" + log.read_text("utf-8"))
            time.sleep(_LOOK_SECONDS)
        return pid

    def show(self, job: str) -> dict[str, Any]:
        """Return all that the broker can tell of a job."""
        told: dict[str, Any] = json.loads(self._type("broker", "show", job, "--json").out)
        return told

    def _answers(self) -> bool:
        trust = ssl.create_default_context(cafile=self._places.workflow / "broker-ca.pem")
        line = http.client.HTTPSConnection("127.0.0.1", self._places.port, context=trust, timeout=5)
        try:
            line.request("GET", "/health/ready")
            return line.getresponse().status == http.client.OK
        except ConnectionError:
            return False
        finally:
            line.close()

    def _type(self, *words: str, settings: tuple[str, ...] = SETTINGS) -> Ended:
        return self._shell.run(self._who, ("sekisho", *words, *settings))
