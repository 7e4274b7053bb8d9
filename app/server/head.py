"""Read the head of a request, and refuse one that is not plain HTTP/1.1.

What one server reads as the end of a request, another can read as the beginning of the next. So everything
that has more than one reading is refused, and the connection closed (RFC 9112, sections 2.2, 3.2, 5 and 6).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from http import HTTPStatus
from urllib.parse import unquote_to_bytes

from app.errors import ServiceError

_FIRST_LINE = re.compile(r"([!#$%&'*+\-.^_`|~0-9A-Z]+) ([^\x00-\x20\x7f]+) HTTP/(1\.[01])")
_FIELD = re.compile(r"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):([\t\x20-\x7e\x80-\xff]*)")
_LENGTH = re.compile(r"[0-9]{1,18}")
_AUTHORITY = re.compile(r"https?://([^/?#]+)", re.IGNORECASE)
_ONCE = {"HOST", "CONTENT_LENGTH", "TRANSFER_ENCODING"}


class MalformedRequest(ServiceError):
    """The request is not valid HTTP."""

    status = HTTPStatus.BAD_REQUEST
    error_type = "bad_request"


@dataclass
class Head:
    """A head without two readings.

    :param target: as it came
    :param path: without percent-encoding; each character is one byte
    :param version: ``1.0`` or ``1.1``
    :param fields: by upper-case name with ``_`` for ``-``; the values of a name that comes twice are joined
    """

    method: str
    target: str
    path: str
    query: str
    version: str
    fields: dict[str, str]

    @property
    def is_chunked(self) -> bool:
        """Whether the body comes in chunks."""
        return "TRANSFER_ENCODING" in self.fields

    @property
    def length(self) -> int:
        """The bytes of a body that is not chunked."""
        return int(self.fields.get("CONTENT_LENGTH", "0"))


def read_head(head: bytes) -> Head:
    """Parse *head*, which ends with an empty line.

    :raises MalformedRequest: with a sentence about the fault
    """
    first, *lines = head.decode("latin-1").split("\r\n")
    fields = _read_fields(lines)
    match = _FIRST_LINE.fullmatch(first)
    if match is None:
        raise MalformedRequest("The first line is not `<method> <path> HTTP/1.1`.")
    method, target, version = match.groups()
    path = _path(target, version, fields.get("HOST"))
    _check_framing(version, fields.get("CONTENT_LENGTH"), fields.get("TRANSFER_ENCODING"))
    path, _, query = path.partition("#")[0].partition("?")
    if "%" in path:
        path = unquote_to_bytes(path.encode("latin-1")).decode("latin-1")
    return Head(method, target, path, query, version, fields)


def _read_fields(lines: list[str]) -> dict[str, str]:
    fields: dict[str, str] = {}
    for line in lines:
        if not line:
            continue
        match = _FIELD.fullmatch(line)
        if match is None:
            raise MalformedRequest(
                "A header continues on a second line." if line[0] in " \t" else "A header is not valid HTTP."
            )
        name, value = match[1], match[2].strip(" \t")
        key = _key(name)
        if key not in fields:
            fields[key] = value
        elif key in _ONCE:
            raise MalformedRequest(f"The header {name} comes twice.")
        else:
            fields[key] += f", {value}"
    fields.pop("", None)
    return fields


@lru_cache(maxsize=256)
def _key(name: str) -> str:
    """Return the key of a header; empty for one with ``_``, which could be taken for one with ``-``."""
    return "" if "_" in name else name.upper().replace("-", "_")


def _path(target: str, version: str, host: str | None) -> str:
    """Return *target* without the server's address."""
    if host is None and version == "1.1":
        raise MalformedRequest("There is no Host header.")
    if target.startswith("/"):
        return target
    authority = _AUTHORITY.match(target)
    if authority is None:
        raise MalformedRequest("The first line does not have a path.")
    if authority[1].lower() != (host or "").lower():
        raise MalformedRequest("The first line and the Host header name different hosts.")
    return target[authority.end() :]


def _check_framing(version: str, length: str | None, encoding: str | None) -> None:
    if length is not None and not _LENGTH.fullmatch(length):
        raise MalformedRequest("Content-Length is not a number of bytes.")
    if encoding is None:
        return
    if length is not None:
        raise MalformedRequest("A body has either a Content-Length or a Transfer-Encoding.")
    if encoding.lower() != "chunked" or version != "1.1":
        raise MalformedRequest("The only Transfer-Encoding is chunked, in HTTP/1.1.")
