"""Sample service: starts fast, stops gracefully, and has the faults that its environment sets (README.md)."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Awaitable, Callable
from urllib.parse import parse_qs, unquote

import streams
from http1 import Answer, Request, Server

INSTANCE = os.environ.get("SLUICE_INSTANCE") or os.uname().nodename
VERSION = os.environ.get("HELLO_VERSION") or "1"
LEDGER = os.environ.get("HELLO_LEDGER") or "/data/ledger"
STARTED = time.monotonic()


def fault(name: str) -> str:
    """Return the fault's value; empty if it is not set, or not for the slot of this instance."""
    slots = os.environ.get("HELLO_FAULTY_SLOTS", "")
    concerned = not slots or os.environ.get("SLUICE_SLOT", "") in slots.replace(" ", "").split(",")
    return os.environ.get(f"HELLO_{name}", "") if concerned else ""


def seconds(text: str, default: float) -> float:
    try:
        return max(0.0, min(float(text), 3600.0))
    except ValueError:
        return default


def die(code: int, why: str) -> None:
    """Exit immediately, without finishing requests."""
    print(why, flush=True)
    os._exit(code)


def say_hello(_: Request) -> Answer:
    return Answer(body=f"Hello from {INSTANCE}, version {VERSION}.\n".encode())


async def be_slow(request: Request) -> Answer:
    wanted = seconds(parse_qs(request.query).get("seconds", [""])[0], 2.0)
    await asyncio.sleep(wanted)
    return Answer(body=f"That took {wanted:g} s.\n".encode())


def take_order(request: Request) -> Answer:
    """Append the order's id to the ledger that all instances share: one line for each execution."""
    order = unquote(request.path.removeprefix("/orders/"))
    if not order or not order.isprintable() or len(order) > 200:
        return Answer(400, b"an order needs an id of at most 200 printable characters\n")
    ledger = os.open(LEDGER, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        os.write(ledger, f"{order}\n".encode())
    finally:
        os.close(ledger)
    return Answer(201, json.dumps({"id": order, "instance": INSTANCE}).encode(), "application/json")


def show_ledger(_: Request) -> Answer:
    """Return every id, once for each execution."""
    try:
        with open(LEDGER, encoding="utf-8") as lines:
            orders = lines.read().splitlines()
    except FileNotFoundError:
        orders = []
    return Answer(body=json.dumps(orders).encode(), content_type="application/json")


def health(_: Request) -> Answer:
    up = time.monotonic() - STARTED
    if fault("NEVER_HEALTHY"):
        return Answer(503, b"never healthy, set by HELLO_NEVER_HEALTHY\n")
    if (limit := fault("UNHEALTHY_AFTER")) and up > seconds(limit, 0):
        return Answer(503, f"healthy for {limit} s only, set by HELLO_UNHEALTHY_AFTER\n".encode())
    return Answer(body=b'{"status": "UP"}', content_type="application/json")


GETS: dict[str, Callable[[Request], Answer | Awaitable[Answer]]] = {
    "/": say_hello,
    "/slow": be_slow,
    "/ledger": show_ledger,
    "/healthz": health,
    "/events": streams.events,
    "/ws": streams.websocket,
}


def handle(request: Request) -> Answer | Awaitable[Answer]:
    if request.path.startswith("/orders/"):
        return take_order(request) if request.method == "POST" else Answer(405, b"POST it\n", headers={"Allow": "POST"})
    route = GETS.get(request.path)
    if route is None:
        return Answer(404, b"no such page\n")
    if request.method not in ("GET", "HEAD"):
        return Answer(405, b"GET it\n", headers={"Allow": "GET, HEAD"})
    return route(request)


async def main() -> None:
    server = Server(handle, {"X-Instance": INSTANCE, "X-Version": VERSION})
    loop = asyncio.get_running_loop()

    def stop() -> None:
        if fault("EXIT_ON_SIGTERM"):
            die(0, "exiting without finishing requests: HELLO_EXIT_ON_SIGTERM is set")
        elif fault("IGNORE_SIGTERM"):
            print("ignoring SIGTERM: HELLO_IGNORE_SIGTERM is set", flush=True)
        else:
            print(f"stopping: {sum(c.occupied for c in server.connections)} requests to finish", flush=True)
            server.stop()

    loop.add_signal_handler(signal.SIGTERM, stop)
    loop.add_signal_handler(signal.SIGINT, stop)
    if limit := fault("DIE_AFTER"):
        loop.call_later(seconds(limit, 0), die, 1, f"exiting after {limit} s: HELLO_DIE_AFTER is set")
    if limit := fault("SLOW_START"):
        await asyncio.sleep(seconds(limit, 0))
    port = int(os.environ.get("PORT") or 8000)
    print(f"{INSTANCE} (version {VERSION}) listens on port {port}", flush=True)
    await server.serve(port)
    print("stopped", flush=True)


if __name__ == "__main__":
    if code := fault("EXIT_AT_START"):
        die(int(seconds(code, 1)) % 256, "this version is broken: HELLO_EXIT_AT_START is set")
    asyncio.run(main())
