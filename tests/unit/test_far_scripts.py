"""What is sent to a computing host, by its text alone."""

import ast

import pytest

from sekisho.adapters.hosts.far import script


@pytest.mark.parametrize("name", ["far.sh", "far_walk.py"])
def test_what_is_sent_is_ascii(name: str) -> None:
    """Python 3.6 in the C locale cannot decode anything else on its command line."""
    assert script(name).isascii()


def test_the_walk_is_python_of_the_oldest_version_that_is_taken() -> None:
    ast.parse(script("far_walk.py"), feature_version=(3, 6))
