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
_FIELDS = re.compile(
    rb"^(host|content-length|transfer-encoding):[ \t]*([^\r\n]*)", re.IGNORECASE | re.MULTILINE
)


class MalformedRequest(ServiceError):
    """The request is not valid HTTP."""

    status = HTTPStatus.BAD_REQUEST
    error_type = "bad_request"


def check_head(head: bytes) -> None:
    """Check the first line and the fields that say where a request goes and where it ends.

    :raises MalformedRequest: with a sentence about the fault
    """
    if b"\n " in head or b"\n\t" in head:
        raise MalformedRequest("A header continues on a second line.")
    fields: dict[bytes, bytes] = {}
    for name, value in _FIELDS.findall(head):
        if name.lower() in fields:
            raise MalformedRequest(f"The header {name.decode()} comes twice.")
        fields[name.lower()] = value.rstrip(b" \t")
    first = head.partition(b"\r\n")[0]
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
