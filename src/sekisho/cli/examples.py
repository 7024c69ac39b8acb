"""Examples that a command's help shows. A test parses each: none names an option that is not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

#: By the command's name, as in the catalogue.
EXAMPLES: Final[Mapping[str, tuple[str, ...]]] = {
    "run": (
        "sekisho run tohoku stress -i strain.txt -p steps=4 -o stress.csv --into results",
        "sekisho run tohoku stress -i mesh=/data/mesh-7 -o 'step-*.csv' --timeout 2h",
    ),
    "submit": (
        "job=$(sekisho submit tohoku stress -i strain.txt -o stress.csv)",
        "sekisho submit tohoku stress -i strain.txt --id-file stress.id --queue-limit 30m",
    ),
    "wait": ("sekisho wait $job --into results", "sekisho wait $job --no-fetch --json"),
    "fetch": ("sekisho fetch $job --into results", "sekisho fetch $job --so-far --into now"),
    "client.init": (
        "sekisho client init --broker https://broker.example.jp:50443 --token-file taro.token",
    ),
    "site.init": ("sekisho site init --broker https://broker.example.jp:50443 --ca broker-ca.pem",),
    "site.join": ("sekisho site join --invitation-file invitation",),
    "site.log": (
        "sekisho site log --month 2026-11",
        "sekisho site log --verify",
        "sekisho site log --receipt DIGEST",
    ),
    "site.gate-key.add": (
        "sekisho site gate-key add taro.pub --submitter taro --from 192.0.2.0/24",
    ),
    "site.manifest-from": (
        "sekisho site manifest-from --ini mi-system-api.ini --site tohoku --user taro",
    ),
    "broker.init": (
        "sekisho broker init ~/broker --host 0.0.0.0 --tls-cert server.pem --tls-key server.key",
    ),
    "broker.site.add": (
        "(umask 077; sekisho broker site add tohoku --user taro --user hanako > invitation)",
    ),
    "broker.token.create": (
        "sekisho broker token create --role submitter --user taro --days 365 --to taro.token",
        "sekisho broker token create --role monitor --user prometheus --to prometheus.token",
    ),
    "broker.jobs": ("sekisho broker jobs --site tohoku --state running",),
    "broker.backup": ("sekisho broker backup ~/backup-1",),
}
