"""Copies of the sockets that the gateway listens on: while it is away the kernel queues who comes, and refuses nobody; the
gateway that starts next takes the very same sockets over (docs/why-kept-sockets.md).

As HAProxy gives its own (src/cli.c and src/sock.c of 3.0): asked `_getsocks` it tells how many there are, then sends them,
at most 252 at a time, with six bytes for each, zeros where it has neither namespace nor interface. A full message is
acknowledged.
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
"""Where a gateway that starts finds them (start.sh)."""
CAPABLE = "SLUICE_TAKES_KEPT"
"""In the environment of a gateway that looks there. An older one could not listen while they are kept."""
RELEASE_AFTER = 8.0
"""Seconds for which nobody listens, after which they are closed. Fewer than the ground's HUNG: a port that has been silent
for so long is then one whose gateway hangs."""
POLL_INTERVAL = 1.0
"""Seconds between two looks whether anybody listens: nothing tells."""
TIMEOUT = 1.0
"""Seconds for an answer. HAProxy waits no longer either."""
Bind = tuple[str, int]
_ASK = b"_getsocks\n"
_AT_ONCE = 252
_OF_EACH = bytes(6)
_NUMBER = struct.Struct("=i")


class ListenerRetention:
    """Has threads of its own: a HAProxy that starts does not wait until a busy loop has time for it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._guard = threading.Lock()
        self._held: list[socket.socket] = []
        self._binds: frozenset[Bind] = frozenset()
        self._told, self._fetched = 0, 0
        """How often what is listened on may have changed, and at which of these times it was fetched."""
        self._news = threading.Event()
        self._door: socket.socket | None = None
        self._inode = 0
        self._looking: threading.Thread | None = None
        self._closed = False

    @property
    def binds(self) -> set[Bind]:
        """Addresses and ports that are kept at present."""
        with self._guard:
            return {_bind(each) for each in self._held}

    def start(self) -> None:
        """Before a gateway starts: it will find the socket, whoever has removed it. What cannot be given is not kept."""
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
        """The present worker listens on these alone: what is kept of others is closed, and new ones will be fetched."""
        with self._guard:
            self._binds = binds
            self._told += 1
            self._hold([each for each in self._held if _bind(each) in binds])
        self._news.set()

    def close(self) -> None:
        """For good. Who waits in them, when no gateway is there, is refused."""
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
                    listened = time.monotonic()  # by one that does not take us in: it hangs, and has the sockets itself
                except OSError:
                    if self._held and time.monotonic() - listened > RELEASE_AFTER:
                        log.warning("gateway_sockets_let_go", after=RELEASE_AFTER)
                        self._release()
        finally:
            self._release()

    def _check(self) -> None:
        """OSError when nobody listens."""
        if self._fetched == self._told or self._door is None:
            _ask(self._directory / ADMIN, b"").close()
            return
        told = self._told
        found = receive_listeners(self._directory / ADMIN) if _is_capable(self._directory / MASTER) else []
        with self._guard:
            self._hold([each for each in found if _bind(each) in self._binds])
            for each in set(found) - set(self._held):
                each.close()
            # A worker that is being replaced may have answered: it has none of the new ones.
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
                log.warning("gateway_sockets_not_given", error=str(error))  # no open file is left, say: it may be again
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
            door.shutdown(socket.SHUT_RDWR)  # who waits in accept is told; of a close alone it would not be
            door.close()


def receive_listeners(admin: Path) -> list[socket.socket]:
    """Copies of all that the HAProxy behind this socket listens on. OSError."""
    with _ask(admin, _ASK) as line, ExitStack() as undone:
        said = line.recv(_NUMBER.size, socket.MSG_WAITALL)
        if 0 < len(said) < _NUMBER.size:
            raise ConnectionError("HAProxy has broken off")
        found: list[socket.socket] = []
        while said and len(found) < _NUMBER.unpack(said)[0]:
            # Not recv_fds: it forgets its flags (Python 3.11 to 3.13), and children would inherit them.
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
    """To the HAProxy that asks on `line`. OSError."""
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
    """Whether the present gateway would take them over. OSError when it does not say."""
    with _ask(master, f"@1 show env {CAPABLE}\n".encode()) as line:
        said = line.recv(4096)
    if f"{CAPABLE}=".encode() in said:
        return True
    if b"not found" in said:
        return False
    raise ConnectionError("HAProxy has no worker that could say")


def _bind(listening: socket.socket) -> Bind:
    """("", 0) of what has a path instead: HAProxy makes that anew, and nobody but us connects to it."""
    if listening.family != socket.AF_INET:
        return "", 0
    address, port = listening.getsockname()
    return address, port
