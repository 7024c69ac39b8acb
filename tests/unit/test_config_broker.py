"""The broker's settings: defaults, the template, and how they become a policy."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from sekisho.compose.broker import policy
from sekisho.config.broker import TEMPLATE, BrokerSettings, load_broker
from sekisho.config.load import parse
from sekisho.domain.errors import ConfigError
from sekisho.domain.setting import SettingFault

FILLED = TEMPLATE.format(
    host='"h"',
    port=1,
    tls_cert='tls_cert = "c"',
    tls_key='tls_key = "k"',
    database='database_url_file = "u"',
)


def test_the_template_shows_every_key_with_its_default() -> None:
    uncommented = re.sub(r"(?m)^# ([a-z_]+ = )", r"\1", FILLED)
    shown = msgspec.to_builtins(parse(uncommented, "broker.toml", BrokerSettings))
    defaults = msgspec.to_builtins(BrokerSettings())
    examples = {"host", "port", "tls_cert", "tls_key", "prefix", "trusted_proxies"}
    examples |= {"database_url_file", "user_header"}
    for section, keys in defaults.items():
        for key, value in keys.items():
            assert re.search(rf"(?m)^{key} = ", uncommented), key
            if key not in examples:
                assert shown[section][key] == value


def test_the_template_is_valid_as_it_is_written() -> None:
    assert parse(FILLED, "broker.toml", BrokerSettings).http.tls_cert == "c"


def test_a_certificate_needs_its_key(tmp_path: Path) -> None:
    file = tmp_path / "broker.toml"
    file.write_text('[http]\ntls_cert = "c"\n')
    with pytest.raises(ConfigError) as caught:
        load_broker(file, {})
    together = {"names": "tls_cert, tls_key"}
    fault = SettingFault("broker.toml", 2, "http.tls_cert", "setting.together", together)
    assert caught.value.params["faults"] == [fault]


def test_files_are_found_from_the_settings_place(tmp_path: Path) -> None:
    (tmp_path / "url").touch(0o600)
    (tmp_path / "url").write_text("postgresql://secret@host/db\n")
    file = tmp_path / "broker.toml"
    file.write_text(
        '[http]\ntls_cert = "c"\ntls_key = "/k"\n'
        '[store]\ndata_dir = "d"\ndatabase_url_file = "url"\n'
    )
    files = load_broker(file, {"SEKISHO_HTTP__PORT": "7"})
    assert (files.tls_cert, files.tls_key) == (tmp_path / "c", Path("/k"))
    assert (files.data, files.pid) == (tmp_path / "d", tmp_path / "d" / "broker.pid")
    assert files.database_url == "postgresql://secret@host/db"
    assert files.settings.http.port == 7
    assert "secret" not in repr(files)


def test_settings_become_a_policy() -> None:
    text = "[quota]\njob_bytes = 7\nsite_jobs = 3\n[retention]\nreceived_days = 0.5\n"
    made = policy(parse(text, "broker.toml", BrokerSettings))
    assert (made.job_bytes, made.site.live_jobs) == (7, 3)
    assert made.keep_received == timedelta(hours=12)
