"""Throw-away TLS: a certificate authority, the server's context and a client's that trusts it."""

from __future__ import annotations

import ssl
from importlib import import_module


def make_contexts(host: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return the server's context for `host`, and a client's context that trusts only it.

    The certificate is also good for localhost, 127.0.0.1 and ::1.

    Raises:
        ImportError: trustme is not installed.
    """
    try:
        trustme = import_module("trustme")
    except ImportError:
        raise ImportError(
            "a TLS gateway needs trustme: pip install 'agent-conn[cli]'", name="trustme"
        ) from None
    authority = trustme.CA()
    names = dict.fromkeys((host, "localhost", "127.0.0.1", "::1"))
    certificate = authority.issue_cert(*names)
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate.configure_cert(server)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(client)
    return server, client
