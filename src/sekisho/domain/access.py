"""Who may do what: roles, their scopes, and whom a site serves.

Identity comes from the credential only. Every route names one scope; a role is a set of scopes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Scope(StrEnum):
    """What a route asks for."""

    OPEN = "open"  #: no credential: health and the description of the API, nothing else
    JOB_SUBMIT = "job:submit"
    JOB_READ = "job:read"
    JOB_CANCEL = "job:cancel"
    SITE_JOIN = "site:join"
    SITE_WORK = "site:work"
    METRICS_READ = "metrics:read"
    ADMIN = "admin"


class Role(StrEnum):
    """What a token is for."""

    SUBMITTER = "submitter"
    SITE = "site"
    INVITATION = "invitation"
    MONITOR = "monitor"
    ADMIN = "admin"


SCOPES: Final[Mapping[Role, frozenset[Scope]]] = {
    Role.SUBMITTER: frozenset({Scope.JOB_SUBMIT, Scope.JOB_READ, Scope.JOB_CANCEL}),
    Role.SITE: frozenset({Scope.SITE_WORK}),
    Role.INVITATION: frozenset({Scope.SITE_JOIN}),
    Role.MONITOR: frozenset({Scope.METRICS_READ}),
    Role.ADMIN: frozenset({Scope.ADMIN, Scope.METRICS_READ}),
}

#: How a token of each role begins, so that people and scanners recognise a leaked one.
PREFIXES: Final[Mapping[Role, str]] = {
    Role.SUBMITTER: "sks_",
    Role.SITE: "ska_",
    Role.INVITATION: "ski_",
    Role.MONITOR: "skm_",
    Role.ADMIN: "skx_",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Whoever a credential proved to be. ``name`` is a user, or the site of a site's token."""

    token_id: str
    role: Role
    name: str

    @property
    def scopes(self) -> frozenset[Scope]:
        return SCOPES[self.role] | {Scope.OPEN}


@dataclass(frozen=True, slots=True)
class Submitters:
    """The users that a site, or one of its commands, serves. An empty list serves nobody."""

    users: frozenset[str]

    def include(self, user: str) -> bool:
        return user in self.users
