"""Which hosts and addresses are this machine, its network, or the internet."""

from __future__ import annotations

import socket

import pytest

from app.addresses import dialled, is_local


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "127.1", "2130706433", "0x7f000001", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.0.1",
        "169.254.169.254", "100.64.0.1", "192.0.2.1", "198.18.0.1", "224.0.0.1", "240.0.0.1",
        "::", "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "64:ff9b:1::1",
        "2002:7f00:1::", "2001:0:0:0:0:0:80ff:fffe", "fc00::1", "fe80::1", "fe80::1%eth0", "fec0::1",
        "ff02::1", "2001:db8::1", "localhost", "LOCALHOST.", "x.localhost", "a.b.localhost.", "[::1]",
    ],
)  # fmt: skip
def test_host_of_this_machine_or_network_is_local(host: str) -> None:
    assert is_local(host)


@pytest.mark.parametrize(
    "host",
    ["1.1.1.1", "104.18.0.1", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101", "hf.co", "a.example"],
)  # fmt: skip
def test_host_of_the_internet_is_not_local(host: str) -> None:
    assert not is_local(host)


def test_own_address_of_this_machine_is_local(monkeypatch: pytest.MonkeyPatch) -> None:
    class Probe(socket.socket):
        def bind(self, address: tuple[str, int]) -> None:
            if address[0] != "1.1.1.1":
                raise OSError

    monkeypatch.setattr(socket, "socket", Probe)

    assert is_local("1.1.1.1")
    assert not is_local("1.0.0.1")


@pytest.mark.parametrize(
    ("host", "dials"),
    [
        ("x.localhost", "127.0.0.1"),
        ("A.B.LocalHost.", "127.0.0.1"),
        ("localhost.", "127.0.0.1"),
        ("localhost", "localhost"),
        ("localhost.example", "localhost.example"),
        ("127.0.0.2", "127.0.0.2"),
    ],
)
def test_names_below_localhost_are_not_looked_up(host: str, dials: str) -> None:
    assert dialled(host) == dials
