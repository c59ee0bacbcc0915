"""The exit statuses of `agent-conn`."""

from __future__ import annotations

from enum import IntEnum


class Status(IntEnum):
    """What a script can tell from the exit status."""

    OK = 0
    REJECTED = 1
    """The peer answered, and refused."""
    UNREACHABLE = 2
    """No answer that could be understood."""
    USAGE = 64
    """A wrong command line, as EX_USAGE of sysexits.h."""
    UNAVAILABLE = 69
    """The command lacks what it needs, such as a port or an extra; EX_UNAVAILABLE of sysexits.h."""
    INTERRUPTED = 130
    """Ended by Ctrl-C, as shells count it: 128 and the signal's number."""


class Finished(SystemExit):
    """Raised by a command to end with `status`."""

    def __init__(self, status: Status) -> None:
        super().__init__(int(status))
