from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import gguf
from tests.registry import smollm2_file
from tests.wire import recording


def start_of_model(size: int) -> bytes:
    with smollm2_file().open("rb") as file:
        return file.read(size)


GGUF_START = start_of_model(4096)


def header(*, version: int = 3, tensors: int = 0, entries: int = 0, rest: bytes = b"") -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, entries) + rest


def string(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode()


def test_header_of_the_bundled_model_says_what_ollama_shows() -> None:
    shown = json.loads(recording("show_ok").body)

    found = gguf.read(smollm2_file())

    info = {**found.metadata, "general.parameter_count": found.parameter_count}
    assert {key: info[key] for key in shown["model_info"]} == shown["model_info"]
    assert {tensor.name: list(tensor.shape) for tensor in found.tensors} == {
        tensor["name"]: tensor["shape"] for tensor in shown["tensors"]
    }


def test_arrays_are_read_when_asked_for() -> None:
    found = gguf.read(smollm2_file(), arrays=True)

    assert len(found.metadata["tokenizer.ggml.tokens"]) == 49152


def test_file_shorter_than_its_tensors_is_named_as_ollama_names_it(tmp_path: Path) -> None:
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(start_of_model(5_000_000))
    found = gguf.read(cut)

    with pytest.raises(ValueError, match=r'tensor ".+" offset\+size \(\d+\) exceeds file size'):
        found.check_complete()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "magic"),
        (b"PK\x03\x04" + bytes(100), "magic"),
        (b"GGUF", "EOF"),
        (header(version=99), "version 99"),
        (header(entries=2**63), "EOF"),
        (header(tensors=2**63), "EOF"),
        (header(entries=1, rest=struct.pack("<Q", 2**62)), "EOF"),
        (header(entries=1, rest=string("a") + struct.pack("<I", 77)), "type 77"),
        (header(entries=1, rest=string("a") + struct.pack("<IIQ", 9, 0, 2**60)), "EOF"),
        (header(entries=1, rest=string("a") + struct.pack("<IIQ", 9, 8, 2**60)), "EOF"),
        (header(entries=1, rest=string("a") + struct.pack("<IIQQ", 9, 8, 1, 2**63)), "EOF"),
        (header(tensors=1, rest=string("t") + struct.pack("<I", 9)), "9 dimensions"),
    ],
)
def test_file_that_is_no_gguf_is_refused_with_the_reason(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(content)

    with pytest.raises(ValueError, match=message):
        gguf.read(path)


@given(st.binary(max_size=400), st.integers(0, 4095))
def test_hostile_bytes_give_a_header_or_a_value_error(noise: bytes, at: int) -> None:
    content = GGUF_START[:at] + noise + GGUF_START[at + len(noise) :]

    for arrays in (False, True):
        try:
            found = gguf.parse(content, arrays=arrays)
        except ValueError:
            continue
        assert found.file_size == len(content)


@given(st.binary(max_size=200), st.integers(0, 3), st.integers(0, 3))
def test_short_hostile_files_give_a_header_or_a_value_error(rest: bytes, tensors: int, entries: int) -> None:
    content = header(tensors=tensors, entries=entries, rest=rest)

    try:
        found = gguf.parse(content)
    except ValueError:
        return
    assert len(found.tensors) == tensors
