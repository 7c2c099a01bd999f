"""Copies of the sockets on which the gateway listens (docs/why-kept-sockets.md).

While the gateway is away, the kernel queues new connections and refuses none. The gateway that starts next takes over the
same sockets.

The protocol is HAProxy's own (src/cli.c and src/sock.c of 3.0). After the request `_getsocks` HAProxy sends the number of
sockets, then the sockets, at most 252 per message. Each socket comes with six bytes, which are zeros if it has neither
namespace nor interface. The receiver acknowledges a full message.
"""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

import structlog

from services.gateway.runtime.takeover import ADMIN, MASTER

log = structlog.get_logger(__name__)
KEPT = "kept.sock"
"""Name of the socket at which a gateway that starts finds the copies (start.sh)."""
CAPABLE = "SLUICE_TAKES_KEPT"
"""Environment variable of a gateway that looks at `kept.sock`.

An older gateway could not listen while the sockets are retained.
"""
RELEASE_AFTER = 8.0
"""Seconds without a listening gateway after which the copies are closed.

This is less than `HUNG` in services/infrastructure: a port that is silent for that long then belongs to a gateway that
hangs.
"""
POLL_INTERVAL = 1.0
"""Seconds between two checks whether a gateway listens; no event reports it."""
TIMEOUT = 1.0
"""Seconds to wait for an answer; HAProxy waits no longer either."""
Bind = tuple[str, int]
_ASK = b"_getsocks\n"
_AT_ONCE = 252
_OF_EACH = bytes(6)
_NUMBER = struct.Struct("=i")


class ListenerRetention:
    """Retention of the gateway's listening sockets.

    The class has threads of its own: a HAProxy that starts does not wait for a busy event loop.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._guard = threading.Lock()
        self._held: list[socket.socket] = []
        self._binds: frozenset[Bind] = frozenset()
        self._told, self._fetched = 0, 0
        """How often the listening sockets may have changed, and this number at the last fetch."""
        self._news = threading.Event()
        self._door: socket.socket | None = None
        self._inode = 0
        self._looking: threading.Thread | None = None
        self._closed = False

    @property
    def binds(self) -> set[Bind]:
        """Addresses and ports that are retained at present."""
        with self._guard:
            return {_bind(each) for each in self._held}

    def start(self) -> None:
        """Open `kept.sock` before a gateway starts, also if the file was removed.

        If the socket cannot be opened, the copies are closed: they could not be handed over.
        """
        path = self._directory / KEPT
        with suppress(FileNotFoundError):
            if path.stat().st_ino == self._inode:
                return
        self._shut()
        try:
            self._door = door = _open(path)
            self._inode = path.stat().st_ino
        except OSError as error:
            log.warning("gateway_sockets_not_kept", error=str(error))
            self._release()
            return
        threading.Thread(target=self._answer, args=(door,), name="kept-door", daemon=True).start()
        if self._looking is None:
            self._looking = threading.Thread(target=self._watch, name="kept", daemon=True)
            self._looking.start()

    def has_read(self, binds: frozenset[Bind]) -> None:
        """Limit retention to `binds`, the only ones on which the present worker listens.

        Copies for other binds are closed; copies for new binds will be fetched.
        """
        with self._guard:
            self._binds = binds
            self._told += 1
            self._hold([each for each in self._held if _bind(each) in binds])
        self._news.set()

    def close(self) -> None:
        """Stop for good and close the copies.

        Connections that wait in them are refused if no gateway is running.
        """
        self._closed = True
        self._news.set()
        if self._looking is not None:
            self._looking.join()
            (self._directory / KEPT).unlink(missing_ok=True)
        self._shut()

    def _watch(self) -> None:
        listened = time.monotonic()
        try:
            while not self._closed:
                self._news.wait(POLL_INTERVAL)
                self._news.clear()
                try:
                    self._check()
                    listened = time.monotonic()
                except (BlockingIOError, TimeoutError):
                    listened = time.monotonic()  # a gateway that does not accept hangs, and still has the sockets
                except OSError:
                    if self._held and time.monotonic() - listened > RELEASE_AFTER:
                        log.warning("gateway_sockets_let_go", after=RELEASE_AFTER)
                        self._release()
        finally:
            self._release()

    def _check(self) -> None:
        """Fetch the listening sockets if they may have changed. Raises OSError if no gateway listens."""
        if self._fetched == self._told or self._door is None:
            _ask(self._directory / ADMIN, b"").close()
            return
        told = self._told
        found = receive_listeners(self._directory / ADMIN) if _is_capable(self._directory / MASTER) else []
        with self._guard:
            self._hold([each for each in found if _bind(each) in self._binds])
            for each in set(found) - set(self._held):
                each.close()
            # A worker that is being replaced may have answered: it has none of the new sockets.
            if {_bind(each) for each in self._held} == self._binds:
                self._fetched = told

    def _release(self) -> None:
        with self._guard:
            self._told += 1
            self._hold([])

    def _hold(self, sockets: list[socket.socket]) -> None:
        before, self._held = self._held, sockets
        for each in set(before) - set(sockets):
            each.close()

    def _answer(self, door: socket.socket) -> None:
        while True:
            try:
                line, _ = door.accept()
            except OSError as error:
                if self._door is not door:
                    return
                log.warning("gateway_sockets_not_given", error=str(error))  # too many open files, for example: retry
                time.sleep(POLL_INTERVAL)
                continue
            with line, ExitStack() as copies, suppress(OSError):
                with self._guard:
                    sockets = [copies.enter_context(each.dup()) for each in self._held]
                send_listeners(line, sockets)
                log.info("gateway_sockets_given", sockets=len(sockets))

    def _shut(self) -> None:
        door, self._door = self._door, None
        if door is not None:
            door.shutdown(socket.SHUT_RDWR)  # this wakes the thread in accept(); close() alone does not
            door.close()


def receive_listeners(admin: Path) -> list[socket.socket]:
    """Return copies of all sockets on which the HAProxy behind `admin` listens. Raises OSError."""
    with _ask(admin, _ASK) as line, ExitStack() as undone:
        said = line.recv(_NUMBER.size, socket.MSG_WAITALL)
        if 0 < len(said) < _NUMBER.size:
            raise ConnectionError("HAProxy has broken off")
        found: list[socket.socket] = []
        while said and len(found) < _NUMBER.unpack(said)[0]:
            # Not recv_fds: it ignores its flags (Python 3.11 to 3.13), and child processes would inherit the sockets.
            _, rights, _, _ = line.recvmsg(65536, socket.CMSG_SPACE(_AT_ONCE * _NUMBER.size), socket.MSG_CMSG_CLOEXEC)
            descriptors = [each for _, _, data in rights for (each,) in _NUMBER.iter_unpack(data)]
            if not descriptors:
                raise ConnectionError("HAProxy has sent fewer sockets than it said")
            found += [undone.enter_context(socket.socket(fileno=each)) for each in descriptors]
            if len(descriptors) == _AT_ONCE:
                line.sendall(_NUMBER.pack(len(found)))
        undone.pop_all()
        return found


def send_listeners(line: socket.socket, sockets: Sequence[socket.socket]) -> None:
    """Send the sockets to the HAProxy that asks on `line`. Raises OSError."""
    line.settimeout(TIMEOUT)
    if line.recv(len(_ASK)) != _ASK:
        return
    line.sendall(_NUMBER.pack(len(sockets)))
    for first in range(0, len(sockets), _AT_ONCE):
        part = [each.fileno() for each in sockets[first : first + _AT_ONCE]]
        socket.send_fds(line, [_OF_EACH * len(part)], part)
        line.recv(_NUMBER.size)


def _open(path: Path) -> socket.socket:
    door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.unlink(missing_ok=True)
        door.bind(str(path))
        path.chmod(0o600)
        door.listen()
    except OSError:
        door.close()
        raise
    return door


def _ask(path: Path, line: bytes) -> socket.socket:
    asking = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        asking.settimeout(TIMEOUT)
        asking.connect(str(path))
        asking.sendall(line)
    except OSError:
        asking.close()
        raise
    return asking


def _is_capable(master: Path) -> bool:
    """Return whether the present gateway would take over the sockets.

    Raises OSError if the gateway does not say.
    """
    with _ask(master, f"@1 show env {CAPABLE}\n".encode()) as line:
        said = line.recv(4096)
    if f"{CAPABLE}=".encode() in said:
        return True
    if b"not found" in said:
        return False
    raise ConnectionError("HAProxy has no worker that could say")


def _bind(listening: socket.socket) -> Bind:
    """Return address and port; `("", 0)` for a socket with a path.

    HAProxy creates a socket with a path again by itself, and no client of the gateway connects to it.
    """
    if listening.family != socket.AF_INET:
        return "", 0
    address, port = listening.getsockname()
    return address, port
