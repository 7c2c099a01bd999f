"""Request counter and debug log entry per request: method, route, status, seconds."""

from __future__ import annotations

import time

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = structlog.get_logger(__name__)


class RequestMetrics:
    """ASGI middleware that labels metrics with the route's template.

    The path itself is no label: clients choose paths, so their number has no limit.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status = time.perf_counter(), 500

        async def send_and_count(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                self._count(scope, status, time.perf_counter() - began)
            await send(message)

        await self.app(scope, receive, send_and_count)

    def _count(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "unknown")
        metrics = scope["app"].state.sluice.metrics
        metrics.api_requests.labels(scope["method"] if len(scope["method"]) < 8 else "other", route, str(status)).inc()
        metrics.api_durations.labels(route).observe(seconds)
        log.debug("request", method=scope["method"], route=route, status=status, seconds=round(seconds, 4))
