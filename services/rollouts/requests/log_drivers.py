"""Log drivers that a spec may name.

They are three built-in ones with safe options, and the operator's profiles. The engine opens a log driver's destination as
root and in the host's network, so a spec never names a destination.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping

from services.engine.port import LogConfig
from services.errors import FieldError
from services.spec import Logging

DRIVERS: Mapping[str, bool] = {"json-file": True, "local": True, "none": False}
"""Built-in drivers that a spec may name → whether they take OPTIONS."""
OPTIONS: Mapping[str, tuple[Callable[[str], bool], str]] = {
    "max-size": (lambda text: re.fullmatch(r"[1-9][0-9]{0,14}[kmg]?", text) is not None, 'must be a size such as "10m"'),
    "max-file": (lambda text: re.fullmatch(r"[1-9][0-9]?|100", text) is not None, "must be a count from 1 to 100"),
    "compress": (lambda text: text in ("true", "false"), 'must be "true" or "false"'),
}
"""Option → the check of its value, and the message for a wrong value."""


def log_errors(profiles: Mapping[str, LogConfig], logging: Logging) -> list[FieldError]:
    """Check a spec's `logging` against the built-in drivers and the operator's `profiles`."""
    if logging.driver in DRIVERS:
        return list(_option_errors(logging))
    if logging.driver in profiles:
        why = f'is not allowed: the operator configures all options of the profile "{logging.driver}"; leave options out'
        return [FieldError("logging.options", why)] if logging.options else []
    allowed_drivers = ", ".join([*DRIVERS, *sorted(profiles)])
    why = (
        f"\"{logging.driver}\" is not allowed: the engine would open the driver's destination with the host's rights; "
        f"use one of {allowed_drivers}, or use a profile that the operator configured in SLUICE_LOG_DRIVERS"
    )
    return [FieldError("logging.driver", why)]


def log_config(profiles: Mapping[str, LogConfig], logging: Logging) -> LogConfig:
    """Return the driver and options of a container for an admitted spec's `logging`."""
    return profiles.get(logging.driver) or LogConfig(logging.driver, logging.options)


def _option_errors(logging: Logging) -> Iterator[FieldError]:
    allowed = OPTIONS if DRIVERS[logging.driver] else {}
    for name, text in logging.options.items():
        field = f"logging.options.{name}"
        if name not in allowed:
            fix = f"allowed are {', '.join(allowed)}" if allowed else "it takes no options"
            yield FieldError(field, f"is not an allowed option of {logging.driver}; {fix}")
        elif not allowed[name][0](text):
            yield FieldError(field, allowed[name][1])
