"""The one module that gives HAProxy commands: one command, one connection, and its answer told for what it is."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

from services.routing.port import RoutingError

CURRENT = "@1"
"""The worker that takes new connections; `@!<pid>` is any worker, old ones included, and the empty string the master. The
name of another master's socket before it (`leaving-3f2a.sock@!14`) means that one's."""
TIMEOUT = 5.0
RESTART = 1.0
"""Seconds that the master may be away: on a reload it starts itself anew, and refuses connections until it has."""
URGENT = 0.25
"""Seconds after which an urgent command is given again: what the master took just before it started anew is forgotten."""
AT_ONCE = 6
"""The master takes ten connections at a time; what cannot wait goes past this bound."""
_SAID_ON_SUCCESS = ("", "New server registered.", "Server deleted.", "Done.")


class CommandRejected(RoutingError):
    """HAProxy took the command and said no; `words` are its own."""

    def __init__(self, command: str, words: str) -> None:
        super().__init__(f"HAProxy refused {command.splitlines()[0]!r}: {words}")
        self.words = words


class OldMasterGone(RoutingError):
    """A master that had been replaced is no more."""


class RuntimeApi:
    """Speaks to the master, and through it to every worker. All methods raise RoutingError; Gone of a replaced master."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._slots = asyncio.Semaphore(AT_ONCE)

    async def query(self, command: str, worker: str = CURRENT, *, timeout: float = TIMEOUT) -> str:
        """The answer as it comes, for commands that show something."""
        async with self._slots:
            return await self._exchange(command, worker, timeout)

    async def execute(self, command: str, worker: str = CURRENT, *, timeout: float = TIMEOUT, urgent: bool = False) -> None:
        """For commands that change something: Refused for any answer but the ones that mean success. `urgent` ones go past
        all others and may meet a reload; they must be harmless twice."""
        if urgent:
            answer = await self._exchange(command, worker, timeout, attempt=URGENT)
        else:
            answer = await self.query(command, worker, timeout=timeout)
        if answer.strip() not in _SAID_ON_SUCCESS:
            raise CommandRejected(command, answer.strip())

    async def queued_requests(self) -> dict[str, int]:
        """How many requests wait for an instance, by service (`show held` is hold.lua's own command)."""
        lines = (await self.query("show held")).split("\n")
        return {service: int(number) for service, _, number in (line.partition(" ") for line in lines) if number}

    async def wait_for_exit(self, within: float) -> bool:
        """True when the present master ends or starts itself anew, or is not there; False after so many seconds."""
        try:
            async with asyncio.timeout(within):
                reader, writer = await asyncio.open_unix_connection(self._socket)
                try:
                    await reader.read(-1)
                finally:
                    writer.close()
        except TimeoutError:
            return False
        except OSError:
            return True
        return True

    async def reload(self, *, timeout: float = 30) -> None:
        """Have the master read its file again. Refused with HAProxy's words when it cannot; the worker then goes on."""
        answer = await self.query("reload", "", timeout=timeout)
        if not answer.startswith("Success=1"):
            raise CommandRejected("reload", _worst(answer))

    async def _exchange(self, command: str, worker: str, timeout: float, *, attempt: float | None = None) -> str:
        loop = asyncio.get_running_loop()
        other, at, rest = worker.partition("@")
        socket = self._socket.with_name(other) if other else self._socket
        line = f"{at}{rest} {command}\n".lstrip()
        until = loop.time() + (RESTART if attempt is None else timeout)  # what is urgent is not given up for a slow reload
        try:
            async with asyncio.timeout(timeout):
                while True:
                    try:
                        async with asyncio.timeout(attempt):
                            if answer := await self._once(socket, line):
                                return answer
                        why = "it closes the connection"
                    except OSError as error:
                        why = error.strerror or str(error)
                        if other and isinstance(error, ConnectionRefusedError | FileNotFoundError):
                            raise OldMasterGone(f"The gateway that was replaced has gone: {why}") from None
                    if loop.time() > until:
                        raise RoutingError(f"The gateway does not answer: {why}")
                    await asyncio.sleep(0.005)
        except TimeoutError:
            raise RoutingError(f"The gateway did not answer {command.split()[0]!r} within {timeout:g} s") from None

    async def _once(self, socket: Path, line: str) -> str:
        """Empty when there was no answer: an answer has at least an empty line.

        That nothing more is asked is said once the answer begins. Told both at once, the master (3.0.11) never answers for a
        worker that is not there, and never gives that connection back either.
        """
        reader, writer = await asyncio.open_unix_connection(socket)
        try:
            writer.write(line.encode())
            if not (begun := await reader.read(1)):
                return ""
            with suppress(OSError):  # it may have said all, and closed
                writer.write_eof()
            return (begun + await reader.read(-1)).decode(errors="replace")
        finally:
            writer.close()


def _worst(startup_log: str) -> str:
    """Of a failed start's log, the lines that say why."""
    lines = [line for line in startup_log.splitlines() if "[ALERT]" in line]
    return "\n".join(lines[:10]) or startup_log.strip()
