"""The gateway itself: sockets, TLS, HTTP, tokens and handshakes."""
