"""The grammar of model names."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.model_name import ModelName

_FIRST = "abcXYZ019_"
_WORD = st.text(_FIRST + "-", min_size=0, max_size=20)


def _part(extra: str) -> st.SearchStrategy[str]:
    return st.builds(str.__add__, st.sampled_from(_FIRST), st.text(_FIRST + "-" + extra, max_size=20))


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("llama3.2", "llama3.2:latest"),
        ("llama3.2:1b", "llama3.2:1b"),
        ("library/llama3.2:1b", "llama3.2:1b"),
        ("registry.ollama.ai/library/llama3.2:1b", "llama3.2:1b"),
        ("me/mine", "me/mine:latest"),
        ("hf.co/user/repo:Q4_K_M", "hf.co/user/repo:Q4_K_M"),
        ("127.0.0.1:5005/library/smollm2:pulltest", "127.0.0.1:5005/library/smollm2:pulltest"),
    ],
)
def test_parse_fills_in_defaults_and_shows_the_short_form(text: str, short: str) -> None:
    name = ModelName.parse(text)

    assert str(name) == short


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "bad name!", "../x", "a/../b", "a:", ":b", "a:b:c", "-a", "a/b/c/d", "http://x/y/z",
        "host:5000/model", "a\n", "a\x00", "é", "x" * 81, "n" * 81 + "/a", "a:" + "t" * 81, "/a", "a/",
    ],
)  # fmt: skip
def test_parse_refuses_what_ollama_refuses(text: str) -> None:
    with pytest.raises(ValueError, match="model name"):
        ModelName.parse(text)


@given(host=_part(".:"), namespace=_part(""), model=_part("."), tag=_part("."))
def test_parse_of_the_short_form_gives_the_same_name(host: str, namespace: str, model: str, tag: str) -> None:
    name = ModelName(host, namespace, model, tag)

    assert ModelName.parse(str(name)) == name
    assert ModelName.parse(f"{host}/{namespace}/{model}:{tag}") == name


@given(st.text(max_size=30))
def test_parse_of_anything_gives_a_name_or_value_error(text: str) -> None:
    with contextlib.suppress(ValueError):
        name = ModelName.parse(text)
        assert ModelName.parse(str(name)) == name


def test_key_ignores_case() -> None:
    one, other = ModelName.parse("SmolLM2:135M"), ModelName.parse("smollm2:135m")

    assert one != other
    assert one.key == other.key
