"""The line of one cell: who is held up where, what strikes it there, and what is left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from helpers.canary import COOKIE, ECHO, QUERY, TOKEN, WORKER_TOKEN
from matrix.cells import Cell
from matrix.proxy import FaultProxy, Passage
from matrix.vocabulary import (
    BUDGET,
    CLOSE,
    HEARTBEAT,
    LONG,
    PACE,
    WAIT,
    Consumer,
    Expected,
    Fault,
    Place,
    Way,
)

from agent_conn import (
    AgentIdentity,
    AttributionMiddleware,
    ConnectionState,
    ConnectTimeout,
    InferenceConnection,
    PoolTimeout,
    StateChanged,
)
from agent_conn.gateway import (
    AcceptAndClose,
    BadAccept,
    CloseWith,
    Garbage,
    Gateway,
    GoSilent,
    IgnoreClose,
    NotWebSocket,
    Redirect,
    Reject,
    UnaskedExtension,
)
from agent_conn.gateway import (
    Fault as GatewayFault,
)

IDENTITY = AgentIdentity(job_id="AJ_1", room_id="RM_1", agent_id="PA_1")
HEADERS = {"X-LiveKit-Worker-Token": WORKER_TOKEN}
TLS_AGREED = 4
"""Turns of speech on a connection of which TLS 1.3 is up at both ends."""
CHUNK = b"\x00" * 262_144
FEW_TURNS = 20

ANSWERS: dict[Fault, GatewayFault] = {
    Fault.REJECT: Reject(401, {"X-Echo": TOKEN, "Set-Cookie": f"session={COOKIE}"}, ECHO),
    Fault.UNAVAILABLE: Reject(503, {"X-Echo": TOKEN}, ECHO),
    Fault.REDIRECT: Redirect(f"https://127.0.0.1:1/?key={QUERY}"),
    Fault.GARBAGE: Garbage(ECHO + b"\r\n\r\n"),
    Fault.BAD_ACCEPT: BadAccept(),
    Fault.UNASKED: UnaskedExtension(),
    Fault.NOT_WEBSOCKET: NotWebSocket(ECHO),
}
ON_THE_WEBSOCKET: dict[Fault, CloseWith | AcceptAndClose | GoSilent | IgnoreClose] = {
    Fault.CLOSE_1011: CloseWith(1011, reason=TOKEN),
    Fault.CLOSE_1008: CloseWith(1008, reason=TOKEN),
    Fault.SILENT: GoSilent(),
    Fault.IGNORE_CLOSE: IgnoreClose(),
}


async def turn(times: int = FEW_TURNS) -> None:
    for _ in range(times):
        await asyncio.sleep(0)


async def echo(ws: aiohttp.ClientWebSocketResponse) -> None:
    await ws.send_str("hello")
    assert await ws.receive_str() == "hello"


class Scene:
    """A gateway behind a proxy, a session with one slot, and the cell that they play."""

    def __init__(
        self, cell: Cell, gateway: Gateway, proxy: FaultProxy, session: aiohttp.ClientSession
    ) -> None:
        held = cell.held
        assert isinstance(held, Expected)
        self.cell = cell
        self.expected = held
        self.gateway = gateway
        self.proxy = proxy
        self.session = session
        self.room = asyncio.Event()
        self.gate = asyncio.Event()
        """Set, a callable of the caller's that is held up goes on."""
        self.reached = asyncio.Event()
        self.made: list[InferenceConnection] = []
        self.told: list[str] = []
        """What observers were told."""
        self.echoes_after = 0
        """Echoes that came back after the strike."""
        self._healing: asyncio.Task[None] | None = None
        if cell.place is Place.HANDSHAKE and cell.fault in ANSWERS:
            gateway.inject(ANSWERS[cell.fault])
        elif cell.place is Place.ON_OPEN and cell.fault in ON_THE_WEBSOCKET:
            gateway.inject(ON_THE_WEBSOCKET[cell.fault])
        elif cell.place is Place.TLS:
            proxy.at_first_bytes = self._reach_with
        elif cell.place is Place.DIAL and cell.fault is Fault.RESET:
            proxy.at_accept = Passage.reset
        elif cell.place is Place.DIAL and cell.fault is Fault.LOSE:
            proxy.ignore_connects()
        elif cell.place is Place.DIAL:
            proxy.refuse()

    @property
    def url(self) -> str:
        """Where to dial, with a secret in its query."""
        return f"wss://127.0.0.1:{self.proxy.port}/v1/echo?key={QUERY}"

    @property
    def waits(self) -> dict[str, Any]:
        """The room to wait for, and how long."""
        if self.cell.place not in {Place.WAITING, Place.TOKEN}:
            return {}
        deadline = self.cell.place is Place.WAITING and self.cell.way is Way.DEADLINE
        return {"room_connected": self.room, "connect_wait": WAIT if deadline else LONG}

    @property
    def budget(self) -> float:
        """Seconds for the opening; those of a pool and a client have the wait in them."""
        cell = self.cell
        bounded = self.expected.error in {ConnectTimeout, PoolTimeout, TimeoutError}
        if not bounded or cell.place is Place.WRITING:
            return LONG
        spans = cell.place is Place.WAITING and cell.consumer in {
            Consumer.POOL,
            Consumer.MIDDLEWARE,
        }
        return BUDGET + (WAIT if spans else 0.0)

    def dial(self) -> InferenceConnection:
        """A connection whose every part belongs to the cell."""
        cell = self.cell
        if self.made and cell.place is Place.DIAL and self._healing is None:
            self.proxy.answer_connects()
            self._healing = asyncio.create_task(self.proxy.heal(), name="proxy.heal")
        heart_beats = cell.way is Way.DEADLINE and cell.place in {Place.READING, Place.IDLE}
        connection = InferenceConnection(
            self.session,
            self.url,
            identity=IDENTITY,
            token=self._mint,
            on_open=self._greet,
            headers=HEADERS,
            open_timeout=LONG if cell.consumer is Consumer.POOL else self.budget,
            close_timeout=self._close_timeout(),
            heartbeat=HEARTBEAT if heart_beats else LONG,
            observer=self._observe,
            **self.waits,
        )
        self.made.append(connection)
        return connection

    async def use(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        """What the caller does with an open websocket."""
        await echo(ws)
        place, fault = self.cell.place, self.cell.fault
        if self.reached.is_set():
            self.echoes_after += 1
        elif place is Place.READING:
            self.reach(Place.READING)
            if fault in {Fault.RESTORE, Fault.DELAY}:
                await echo(ws)
                self.echoes_after += 1
            else:
                async for _ in ws:
                    pass
        elif place is Place.WRITING:
            self.proxy.passages[-1].stall()
            async with asyncio.timeout(BUDGET if self.cell.way is Way.DEADLINE else LONG):
                await self._flood(ws)

    async def until_reached(self) -> None:
        """Let the consumer come to the cell's place, and strike there."""
        place = self.cell.place
        if place in {Place.WAITING, Place.TOKEN}:
            await self.proxy.wait_until(lambda: any(p.turns >= TLS_AGREED for p in self._passages))
            await turn()
            self.reach(Place.WAITING)
            if place is Place.TOKEN:
                self.room.set()
        async with asyncio.timeout(5.0):
            await self.reached.wait()
        if place is Place.DIAL:
            await turn()

    async def let_it_go_on(self) -> None:
        """Nobody acts: what the caller holds up goes on, and what was lost may come back."""
        self.room.set()
        self.gate.set()
        if self.cell.fault is Fault.RESTORE:
            await self.proxy.wait_until(lambda: any(p.withholds for p in self._passages))
            for passage in self._passages:
                passage.restore()

    def reach(self, place: Place, passage: Passage | None = None) -> None:
        """Strike, if the cell is about ``place`` and it is reached for the first time."""
        if place is not self.cell.place or self.reached.is_set():
            return
        self.reached.set()
        passage = passage or (self._passages[-1] if self._passages else None)
        fault = self.cell.fault
        if fault in ON_THE_WEBSOCKET and place is not Place.ON_OPEN:
            self.gateway.connections[-1].inject(ON_THE_WEBSOCKET[fault])
        elif passage is not None and place is not Place.DIAL:
            _strike(passage, fault)

    async def nothing_is_left(self, *, strictly: bool) -> None:
        """No task, no socket at the proxy or the gateway, and the connector's slot is free.

        ``strictly``: the sockets are gone whatever the line does.
        """
        ours = {task.get_name() for task in asyncio.all_tasks()}
        assert {name for name in ours if name.startswith("agent_conn")} == set()
        if self._healing is not None:
            await self._healing
        if strictly:
            await self.proxy.until_clients_have_left(1.0)
            await self.gateway.wait_idle(1.0)
        self.gateway.withdraw_faults()
        await self.proxy.heal()
        async with InferenceConnection(self.session, self.url, identity=IDENTITY) as ws:
            await echo(ws)
        await self.gateway.wait_idle(1.0)
        await self.proxy.wait_until(lambda: not self.proxy.passages, 1.0)

    @property
    def _passages(self) -> list[Passage]:
        return self.proxy.passages

    def _reach_with(self, passage: Passage) -> None:
        self.reach(Place.TLS, passage)

    def _close_timeout(self) -> float:
        """Short where it may be what ends the cell."""
        if self.cell.way is Way.NOTHING:
            return LONG
        cut = self.cell.way is Way.CANCEL and self.cell.place is Place.CLOSING
        # A pool that is cancelled in aclose() still closes what it has.
        return LONG if cut and self.cell.consumer is not Consumer.POOL else CLOSE

    async def _mint(self) -> str:
        if self.cell.place is Place.TOKEN and not self.reached.is_set():
            self.reach(Place.TOKEN)
            await self.gate.wait()
        return TOKEN

    async def _greet(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        if self.cell.place is not Place.ON_OPEN or self.reached.is_set():
            return
        self.reach(Place.ON_OPEN)
        if self.cell.fault is Fault.NONE:
            await self.gate.wait()
        await ws.send_str("hello")
        # Not receive_str(): its exception has the Close frame's reason, which is the peer's.
        if (await ws.receive()).data != "hello":
            raise ConnectionError

    def _observe(self, change: StateChanged) -> None:
        self.told.append(repr(change))
        if change.previous is ConnectionState.OPEN:
            self.reach(Place.CLOSING)

    async def _flood(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        sent = 0

        async def send() -> None:
            nonlocal sent
            while True:
                await ws.send_bytes(CHUNK)
                sent += 1

        async def strike_when_blocked() -> None:
            before = -1
            while before != sent:
                before = sent
                await turn(5 * FEW_TURNS)
            self.reach(Place.WRITING)

        watching = asyncio.create_task(strike_when_blocked(), name="flood")
        try:
            await send()
        finally:
            watching.cancel()
            await asyncio.wait({watching})


def _strike(passage: Passage, fault: Fault) -> None:
    if fault in {Fault.LOSE, Fault.RESTORE}:
        passage.lose()
    elif fault is Fault.STALL:
        passage.stall()
    elif fault is Fault.DELAY:
        passage.slow(PACE)
    elif fault is Fault.TRICKLE:
        passage.slow(PACE, 1)
    elif fault is Fault.RESET:
        passage.reset()
    elif fault is Fault.HALF_CLOSE:
        passage.half_close()


@asynccontextmanager
async def open_scene(cell: Cell) -> AsyncIterator[Scene]:
    """The scene of ``cell``."""
    scenes: list[Scene] = []

    def reaching(place: Place) -> Callable[..., Awaitable[None]]:
        async def reach(*_: object) -> None:
            for scene in scenes:
                scene.reach(place)

        return reach

    trace = aiohttp.TraceConfig()
    # A dial follows its request's start at once. A guard has its own connection, which the
    # request then finds; without one the request makes it.
    trace.on_request_start.append(reaching(Place.DIAL))
    trace.on_connection_create_end.append(reaching(Place.HANDSHAKE))
    trace.on_connection_reuseconn.append(reaching(Place.HANDSHAKE))
    async with Gateway(tls=True) as gateway, FaultProxy(gateway.port) as proxy:
        connector = aiohttp.TCPConnector(limit=1, ssl=gateway.client_ssl or True)
        async with aiohttp.ClientSession(
            connector=connector, trace_configs=[trace], cookies={"session": COOKIE}
        ) as session:
            scenes.append(Scene(cell, gateway, proxy, session))
            yield scenes[0]


def attributed(scene: Scene) -> tuple[aiohttp.ClientSession, AttributionMiddleware]:
    """A session beside the scene's own, on its connector, with the middleware."""
    session = scene.session
    middleware = AttributionMiddleware(
        f"https://127.0.0.1:{scene.proxy.port}", identity=IDENTITY, **scene.waits
    )
    client = aiohttp.ClientSession(
        connector=session.connector,
        connector_owner=False,
        cookie_jar=session.cookie_jar,
        trace_configs=session.trace_configs,
        middlewares=(middleware,),
    )
    return client, middleware
