"""Host names and addresses: which are this machine, and which are public."""

from __future__ import annotations

import ipaddress
import socket
from functools import lru_cache

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
_HOLDS_IPV4 = (  # in its last 32 bits: NAT64, and forms of an IPv4 address that are no longer used
    ipaddress.IPv6Network("64:ff9b::/96"),
    ipaddress.IPv6Network("::/96"),
    ipaddress.IPv6Network("::ffff:0:0:0/96"),
)


@lru_cache(maxsize=256)
def is_loopback(host: str) -> bool:
    """Tell whether *host* is a loopback address or a name for one."""
    address = parse(host)
    if address is None:
        name = host.lower().rstrip(".")
        return name == "localhost" or name.endswith(".localhost")
    mapped = getattr(address, "ipv4_mapped", None)  # ::ffff:127.0.0.1
    return bool((mapped or address).is_loopback)


@lru_cache(maxsize=256)
def dialled(host: str) -> str:
    """Return what to connect to for *host*: names below `localhost` are this machine (RFC 6761).

    Where the system's resolver does not know that, it would ask the DNS, and somebody could answer.
    """
    is_name_below = host.lower().rstrip(".").endswith(".localhost")
    return "127.0.0.1" if is_name_below or host.lower() == "localhost." else host


def parse(host: str) -> _Address | None:
    """Return the address that *host* is; None for a name."""
    try:
        return ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return None


def is_local(host: str) -> bool:
    """Tell whether *host* is an address that is not public, or a name of this machine."""
    address = parse(host)
    if address is None:
        try:
            address = ipaddress.IPv4Address(socket.inet_aton(host))  # forms such as 127.1 and 2130706433
        except (OSError, UnicodeError):
            return is_loopback(host)
    return not is_public(address)


def is_public(address: _Address) -> bool:
    """Tell whether *address* is one of the internet: not of this machine, a private network or a group."""
    if isinstance(address, ipaddress.IPv6Address):
        embedded = _embedded(address)
        if embedded is not None:
            return is_public(embedded)
        if address not in _GLOBAL_UNICAST:
            return False
    return address.is_global and not (address.is_multicast or address.is_reserved or _is_own(address))


def _embedded(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """Return the IPv4 address to which packets for *address* are sent on."""
    if any(address in network for network in _HOLDS_IPV4):
        return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    teredo = address.teredo
    return address.ipv4_mapped or address.sixtofour or (teredo[1] if teredo else None)


def _is_own(address: _Address) -> bool:
    """Tell whether *address* is one of this machine: a socket can be bound to no other."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((str(address), 0))
    except OSError:
        return False
    return True
