from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.engine import gojson
from app.engine.gojson import BadBodyError, Field


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (0, 0),
        (300, 300),
        (1.5, 1.5),
        ("10m", 600),
        ("1h30m", 5400),
        ("1.5h", 5400),
        ("250ms", 0.25),
        ("0", 0),
        ("-1s", gojson.FOREVER),
        (-1, gojson.FOREVER),
        (10**300, gojson.FOREVER),
    ],
)
def test_keep_alive_is_read_as_go_reads_it(value: object, seconds: float) -> None:
    assert gojson.duration(value) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("soon", 'time: invalid duration "soon"'),
        ("300", 'time: missing unit in duration "300"'),
        ("", 'time: invalid duration ""'),
        ("5 m", 'time: invalid duration "5 m"'),
        (True, "json: cannot unmarshal"),
        ([], "json: cannot unmarshal"),
    ],
)
def test_bad_keep_alive_is_refused_in_go_words(value: object, message: str) -> None:
    with pytest.raises(BadBodyError, match=message.replace("(", r"\(")):
        gojson.duration(value)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"model":', "unexpected EOF"),
        (b'{"model":"x', "unexpected EOF"),
        (b"hello", "invalid character 'h' looking for beginning of value"),
        (b"{a:1}", "invalid character 'a' looking for beginning of object key string"),
        (b'{"a" 1}', "invalid character '1' after object key"),
        (b'{"a":1 "b":2}', "invalid character '\"' after object key:value pair"),
        (b'{"a":NaN}', "invalid character 'N' looking for beginning of value"),
        (b"[" * 100_000, "exceeded max depth"),
    ],
)
def test_bad_json_is_refused_in_go_words(body: bytes, message: str) -> None:
    with pytest.raises(BadBodyError) as caught:
        gojson.loads(body)

    assert str(caught.value) == message


def test_wrong_type_is_named_as_go_names_it() -> None:
    with pytest.raises(BadBodyError) as caught:
        gojson.decode(b'{"model":5}', "ShowRequest", {"model": Field("string")})

    assert str(caught.value) == (
        "json: cannot unmarshal number into Go struct field ShowRequest.model of type string"
    )


def test_null_counts_as_absent() -> None:
    assert gojson.decode(b'{"model":null,"x":1}', "R", {"model": Field("string")}) == {"x": 1}
    assert gojson.decode(b"null", "R", {}) == {}


@given(st.text())
def test_dumps_escapes_html_and_keeps_the_value(text: str) -> None:
    encoded = gojson.dumps({"text": text})

    assert not set(b"<>&") & set(encoded)
    assert json.loads(encoded) == {"text": text.encode("utf-8", "replace").decode()}


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (1_795_355_881_967_361_771, "2026-11-22T13:58:01.967361771Z"),
        (1_795_355_881_500_000_000, "2026-11-22T13:58:01.5Z"),
    ],
)
def test_timestamp_is_written_as_go_writes_it(nanoseconds: int, text: str) -> None:
    assert gojson.timestamp(nanoseconds) == text
