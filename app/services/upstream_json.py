"""JSON as upstreams write it, without what JSON does not have."""

from __future__ import annotations

import json
import math
from typing import Any


def _finite(text: str) -> float | None:
    number = float(text)
    return number if math.isfinite(number) else None


_DECODER = json.JSONDecoder(parse_float=_finite, parse_constant=lambda _: None)


def parse(data: bytes | str) -> Any:
    """Return the value of *data*; NaN and numbers that are infinite become None: no client could read them.

    :raises ValueError: when it is not JSON in UTF-8
    :raises RecursionError: when it is nested without end
    """
    return _DECODER.decode(data if isinstance(data, str) else data.decode())
