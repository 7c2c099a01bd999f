"""Shell completion: names from Sluice, nothing if Sluice does not answer in time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import typer

from app.cli.client.http import Client
from app.cli.client.server_address import find_server
from app.cli.errors import CliError

COMPLETION_TIMEOUT = 2.0
"""Timeout of a completion in seconds."""
Words = list[tuple[str, str]]


def services(ctx: typer.Context, incomplete: str) -> Words:
    """Complete service names, each with its status."""
    return _asked(ctx, incomplete, _services)


def numbers_and_services(ctx: typer.Context, incomplete: str) -> Words:
    """Complete service names, and the numbers of the newest deployments."""

    async def both(client: Client) -> Words:
        newest = await client.get_all("/deployments", most=20)
        numbers = [(str(d["id"]), f"{d['service']}: {d['kind']} {d['status']}") for d in newest]
        return [*await _services(client), *numbers]

    return _asked(ctx, incomplete, both)


def instances_and_services(ctx: typer.Context, incomplete: str) -> Words:
    """Complete service names, and the ids of the current instances."""

    async def both(client: Client) -> Words:
        there = [(str(i["id"]), str(i["status"])) for i in await client.get_all("/instances")]
        return [*await _services(client), *there]

    return _asked(ctx, incomplete, both)


async def _services(client: Client) -> Words:
    return [(str(service["name"]), str(service["status"])) for service in await client.get_all("/services")]


def _asked(ctx: typer.Context, incomplete: str, ask: Callable[[Client], Awaitable[Words]]) -> Words:
    given: dict[str, Any] = ctx.params

    async def at_once() -> Words:
        async with asyncio.timeout(COMPLETION_TIMEOUT), Client(find_server(given.get("url"), given.get("token"))) as client:
            return await ask(client)

    try:
        words = asyncio.run(at_once())
    except (CliError, TimeoutError):
        return []
    return sorted((word, about) for word, about in words if word.startswith(incomplete))
