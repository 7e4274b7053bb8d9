"""A certificate for localhost, and a client that trusts it."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

import trustme


@dataclass(frozen=True)
class Tls:
    """The TLS contexts of a server and of its clients.

    :param identity: the file with the server's certificate and its key
    :param authority: the file with the certificate of the authority that signed the server's certificate
    """

    server: ssl.SSLContext
    client: ssl.SSLContext
    identity: Path
    authority: Path


def make_tls(folder: Path) -> Tls:
    """Return the contexts for a server at localhost; write the files into *folder*."""
    authority = trustme.CA()
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    certificate = authority.issue_cert("localhost", "127.0.0.1")
    certificate.configure_cert(server)
    identity = folder / "identity.pem"
    certificate.private_key_and_cert_chain_pem.write_to_path(str(identity))
    authority.configure_trust(client)
    file = folder / "authority.pem"
    authority.cert_pem.write_to_path(str(file))
    return Tls(server, client, identity, file)
