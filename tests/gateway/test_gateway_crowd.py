from __future__ import annotations

import socket
from contextlib import ExitStack

from agent_conn.gateway import Gateway

CROWD = 700


async def test_hundreds_that_dial_in_one_turn_need_not_dial_again(gateway: Gateway) -> None:
    unanswered = 0
    with ExitStack() as crowd:
        for _ in range(CROWD):
            sock = crowd.enter_context(socket.socket())
            sock.settimeout(0)
            sock.connect_ex((gateway.host, gateway.port))
            try:
                sock.getpeername()
            except OSError:
                unanswered += 1
    assert unanswered == 0
