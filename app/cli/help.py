"""Classes of the commands: flags have no type in help pages, and a value is given once."""

from __future__ import annotations

from collections import Counter
from typing import Any

from typer.core import TyperCommand, TyperGroup

from app.cli.waiting import WAIT_SPELLINGS


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
    """Command that shows flags without a type, and refuses a second value of an option for one value."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments; an option that takes one value and is given twice is a usage error."""
        args = [WAIT_SPELLINGS.get(arg, arg) for arg in args]
        if not ctx.resilient_parsing:
            _, _, order = self.make_parser(ctx).parse_args(args=list(args))
            given = Counter(param for param in order if param.param_type_name == "option")
            for param, count in given.items():
                if count > 1 and not (param.multiple or getattr(param, "is_flag", False)):
                    ctx.fail(f"{max(param.opts, key=len)} is given {count} times: it takes one value")
        return super().parse_args(ctx, args)


class HelpGroup(_FlagsWithoutType, TyperGroup):
    """Group of commands whose help page shows flags without a type."""
