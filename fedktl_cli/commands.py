"""How the command line is read: help, options of the whole program, and answers to what is mistyped."""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup

from fedktl_cli.terminal import safe

ANYWHERE = ("-q", "--quiet", "-v", "--verbose")  # options of the program that may follow a command


class Group(TyperGroup):
    """Shows its help, and succeeds, if no command follows or `help` does."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or args[0] == "help":
            args = [*args[1:], "--help"]
        return super().parse_args(ctx, args)


class Program(Group):
    """Accepts some of its options after a command, too, says where the others belong, and suggests nothing twice."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        end = args.index("--") if "--" in args else len(args)
        early = [word for word in args[:end] if word in ANYWHERE]
        rest = [word for word in args[:end] if word not in ANYWHERE] + args[end:]
        return super().parse_args(ctx, early + rest if rest else args)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except Exception as error:  # NoSuchOption, of click or of the click that Typer brings, by its version
            refused: Any = error
            option = getattr(refused, "option_name", "")
            if isinstance(getattr(refused, "message", None), str):
                refused.message = safe(refused.message)
                if "Did you mean" in refused.message:
                    refused.possibilities = None  # else they would be shown twice
            if option in (name for parameter in self.params for name in parameter.opts):
                refused.message = f"{option} goes before the command: fedktl {option} ... {ctx.invoked_subcommand} ..."
                refused.possibilities = None
            raise
