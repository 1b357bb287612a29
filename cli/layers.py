"""``netdef layers``: the layer types, and the documentation of one."""

from __future__ import annotations

import sys
from collections.abc import Iterable

import click

from .running import Command, say


@click.command(cls=Command)
@click.argument("type_name", metavar="[TYPE]", required=False)
@click.option("--markdown", is_flag=True, help="Print plain Markdown, on a terminal too.")
def layers(type_name: str | None, markdown: bool) -> None:
    """List the layer types, or explain one: formula, shapes, parameters, an example.

    \b
    netdef layers
    netdef layers Convolution
    """
    from netdef import reference

    if type_name is None:
        entries = reference.layer_entries()
        width = max(map(len, entries))
        for name, said in entries.items():
            say(f"{name:{width}}  {said.summary.replace('`', '')}")
        return
    page = reference.layer_page(_find(type_name, reference.layer_entries()))
    if markdown or not sys.stdout.isatty():
        say(page, newline=False)
        return
    from rich.console import Console
    from rich.markdown import Markdown

    Console().print(Markdown(page))


def _find(given: str, known: Iterable[str]) -> str:
    """The type that is meant, in any letter case, or as the old syntax spells it: INNER_PRODUCT."""
    from netdef.errors import NetError, did_you_mean

    by_letters = {name.lower(): name for name in known}
    letters = given.lower().replace("_", "")
    if letters in by_letters:
        return by_letters[letters]
    raise NetError(
        f'there is no layer type "{given}"',
        code="E101",
        hint=did_you_mean(given, by_letters.values()) or "`netdef layers` lists them",
    )
