"""The words of the old command lines: every form that scripts use, and what is none."""

from pathlib import Path
from typing import Any

import pytest

from sekisho.cli.mint import OldWords, old_url, old_words
from sekisho.domain.errors import UsageError


@pytest.mark.parametrize(
    ("words", "facts"),
    [
        ([], {}),
        (["debug"], {"debug": True}),
        (["port:443"], {"port": 443}),
        (["retry:5,60"], {}),
        (["retry:5,0.5"], {}),
        (["no_auth:/path/ca.pem"], {"ca_file": Path("/path/ca.pem")}),
        (["calc_base:/data/計算"], {"calc_base": Path("/data/計算")}),
        (["user:tanaka"], {"user": "tanaka"}),
        (["port:443", "debug", "retry:1,1", "port:8443"], {"port": 8443, "debug": True}),
    ],
)
def test_every_form_means_what_it_meant(words: list[str], facts: dict[str, Any]) -> None:
    assert old_words(words) == OldWords(**facts)


@pytest.mark.parametrize(
    "word",
    [
        "",
        "debug:",
        "debug:1",
        "Debug",
        "port",
        "port:",
        "port:https",
        "port:-1",
        "port:123456",
        "retry",
        "retry:5",
        "retry:5,60,1",
        "calc_base:relative",
        "calc_base",
        "no_auth:",
        "user:",
        "user:a b",
        "verify:no",
    ],
)
def test_what_is_no_such_form_is_refused_with_the_word(word: str) -> None:
    with pytest.raises(UsageError) as caught:
        old_words([word])
    assert (caught.value.code, caught.value.params) == ("mint.word", {"word": word})


def test_turning_the_check_of_certificates_off_has_an_answer_of_its_own() -> None:
    with pytest.raises(UsageError) as caught:
        old_words(["debug", "no_auth"])
    assert caught.value.code == "mint.no_auth"


@pytest.mark.parametrize(
    ("base", "url"),
    [
        ("https://mint.example.jp", "https://mint.example.jp:50443"),
        ("https://mint.example.jp/", "https://mint.example.jp:50443"),
        ("https://mint.example.jp:443", "https://mint.example.jp:443"),
        ("https://mint.example.jp/a/b/", "https://mint.example.jp:50443/a/b"),
        ("https://[2001:db8::1]", "https://[2001:db8::1]:50443"),
        ("http://10.0.0.1", "http://10.0.0.1:50443"),
    ],
)
def test_an_address_without_a_port_gets_the_usual_one(base: str, url: str) -> None:
    assert old_url(base, 50443) == url


@pytest.mark.parametrize("base", ["", "mint.example.jp", "ftp://x", "https://", "https:///a"])
def test_what_is_no_address_is_refused(base: str) -> None:
    with pytest.raises(UsageError):
        old_url(base, 50443)
