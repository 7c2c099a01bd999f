"""Help pages of the command line: options without a value are shown without a type."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand, TyperGroup


class _FlagsWithoutType:
    """Mixin that removes `<bool>` from flags: a flag takes no value."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the parameters for a call and for the help page."""
        params: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        for param in params:
            if getattr(param, "is_flag", False) and param.metavar is None:
                param.metavar = ""
        return params


class HelpCommand(_FlagsWithoutType, TyperCommand):
    """Command whose help page shows flags without a type."""


class HelpGroup(_FlagsWithoutType, TyperGroup):
    """Group of commands whose help page shows flags without a type."""
