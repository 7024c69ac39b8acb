"""A throw-away certificate authority and the broker's certificate, valid for this demo only."""

from __future__ import annotations

from pathlib import Path

import trustme


def make_certificates(broker: Path, readers: tuple[Path, ...]) -> None:
    """Write certificate and key into ``broker``, and the authority's certificate to ``readers``.

    The authority's own key is never written: nothing else can be signed with it.
    """
    authority = trustme.CA(organization_name="sekisho demo", organization_unit_name="demo")
    server = authority.issue_cert("127.0.0.1", "localhost")
    key = broker / "server.key"
    key.touch(mode=0o600)
    server.private_key_pem.write_to_path(str(key))
    for n, part in enumerate(server.cert_chain_pems):
        part.write_to_path(str(broker / "server.pem"), append=n > 0)
    for reader in readers:
        authority.cert_pem.write_to_path(str(reader / "broker-ca.pem"))
