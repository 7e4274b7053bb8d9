"""Refuse the head of a request that is not plain HTTP/1.1.

What one server reads as the end of a request, another can read as the beginning of the next. So everything
that has more than one reading is refused, and the connection closed (RFC 9112, sections 2.2, 3.2, 5 and 6).
"""

from __future__ import annotations

import re
from http import HTTPStatus

from app.errors import ServiceError

_TARGET = re.compile(rb"[^\x00-\x20\x7f]+")
_LENGTH = re.compile(rb"[0-9]{1,18}")
_AUTHORITY = re.compile(rb"https?://([^/?#]+)", re.IGNORECASE)
_ONCE = (b"host", b"content-length", b"transfer-encoding")


class MalformedRequest(ServiceError):
    """The request is not valid HTTP."""

    status = HTTPStatus.BAD_REQUEST
    error_type = "bad_request"


def check_head(head: bytes) -> None:
    """Check the first line and the fields that say where a request goes and where it ends.

    :raises MalformedRequest: with a sentence about the fault
    """
    first, *lines = head.rstrip(b"\r\n").split(b"\r\n")
    fields: dict[bytes, bytes] = {}
    for line in lines:
        if line[:1] in {b" ", b"\t"}:
            raise MalformedRequest("A header continues on a second line.")
        name, _, value = line.partition(b":")
        name = name.lower()
        if name in _ONCE:
            if name in fields:
                raise MalformedRequest(f"The header {name.decode()} comes twice.")
            fields[name] = value.strip(b" \t")
    version = _check_first_line(first, fields.get(b"host"))
    _check_framing(version, fields.get(b"content-length"), fields.get(b"transfer-encoding"))


def _check_first_line(line: bytes, host: bytes | None) -> bytes:
    """Return the version of HTTP."""
    parts = line.split(b" ")
    if len(parts) != 3 or parts[2] not in {b"HTTP/1.0", b"HTTP/1.1"} or not _TARGET.fullmatch(parts[1]):
        raise MalformedRequest("The first line is not `<method> <path> HTTP/1.1`.")
    _, target, version = parts
    if host is None and version == b"HTTP/1.1":
        raise MalformedRequest("There is no Host header.")
    authority = _AUTHORITY.match(target)
    if authority is None and not target.startswith(b"/"):
        raise MalformedRequest("The first line does not have a path.")
    if authority is not None and authority[1].lower() != (host or b"").lower():
        raise MalformedRequest("The first line and the Host header name different hosts.")
    return version


def _check_framing(version: bytes, length: bytes | None, encoding: bytes | None) -> None:
    if length is not None and not _LENGTH.fullmatch(length):
        raise MalformedRequest("Content-Length is not a number of bytes.")
    if encoding is None:
        return
    if length is not None:
        raise MalformedRequest("A body has either a Content-Length or a Transfer-Encoding.")
    if encoding.lower() != b"chunked" or version != b"HTTP/1.1":
        raise MalformedRequest("The only Transfer-Encoding is chunked, in HTTP/1.1.")
