"""The names of models that users type."""

from __future__ import annotations

import pytest

from app.errors import InvalidModelName
from app.services.ollama.names import check_name


def test_name_is_parsed_once() -> None:
    assert check_name("llama3.2:1b") is check_name("llama3.2:1b")


def test_bad_name_is_an_error_each_time() -> None:
    for _ in range(2):
        with pytest.raises(InvalidModelName):
            check_name("a b")
