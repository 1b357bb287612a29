"""``netdef check``: what is wrong with nets and solvers, without data, weights or memory."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from .running import Command, lenient_option, say

if TYPE_CHECKING:
    from netdef.errors import Diagnostic


@click.command(cls=Command)
@click.argument("files", metavar="FILE...", type=click.Path(), nargs=-1, required=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line and file.")
@lenient_option
def check(files: tuple[str, ...], as_json: bool, lenient: bool) -> None:
    """Check the nets and solvers in FILE...: parse, upgrade, build, compute every shape.

    No data, weights or other files are needed. A net is checked for training, testing and
    deploying, as far as it is meant for them. All problems of all files are printed; the exit
    status is 1 where there are errors, and 0 where there are none or only warnings.
    """
    from netdef import prototxt
    from netdef.check import check as check_file

    failed = 0
    with prototxt.lenient(lenient):
        for file in files:
            report = check_file(file)
            failed += not report.ok
            if as_json:
                record = {
                    "file": file,
                    "ok": report.ok,
                    "errors": [_as_record(each) for each in report.errors],
                    "warnings": [_as_record(each) for each in report.warnings],
                }
                say(json.dumps(record))
                continue
            for each in (*report.errors, *report.warnings):
                say(f"{each}\n")
            count = len(report.errors)
            verdict = f"{count} error{'s' if count > 1 else ''}" if count else "ok"
            if report.warnings:
                count = len(report.warnings)
                verdict += f", {count} warning{'s' if count > 1 else ''}"
            say(f"{file}: {f'{report.kind}, ' if report.kind else ''}{verdict}")
    if failed:
        raise SystemExit(1)


def _as_record(found: Diagnostic) -> dict[str, object]:
    """A diagnostic for a program; what has no place of its own stands at the first character."""
    message = f"{found.message} ({found.hint})" if found.hint else found.message
    line, column = (found.location.line, found.location.column) if found.location else (1, 1)
    return {"line": line, "column": column, "code": found.code, "message": message}
