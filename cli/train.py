"""``netdef train``: train a network, resume, or fine-tune."""

from __future__ import annotations

from typing import Any

import click

from .running import EFFECTS, Command, Signals, caffe_option, run_options, running, split_list


@click.command(cls=Command, no_args_is_help=True)
@click.argument("solver_file", metavar="SOLVER", required=False, type=click.Path())
@caffe_option("solver", type=click.Path(), help="The solver, in Caffe's spelling.")
@caffe_option("snapshot", type=click.Path(), help="Resume from this .solverstate.")
@caffe_option("weights", default="", help="Start from these .caffemodel files, comma-separated.")
@click.option("--skip-mismatch", is_flag=True, help="Leave out layers whose weights do not fit.")
@caffe_option(
    "sigint_effect",
    type=click.Choice(EFFECTS),
    default="stop",
    show_default=True,
    help="What Ctrl-C does; a second one ends at once.",
)
@caffe_option(
    "sighup_effect",
    type=click.Choice(EFFECTS),
    default="snapshot",
    show_default=True,
    help="What SIGHUP does.",
)
@run_options
def train(
    solver_file: str | None,
    solver: str | None,
    snapshot: str | None,
    weights: str,
    skip_mismatch: bool,
    sigint_effect: str,
    sighup_effect: str,
    **options: Any,
) -> None:
    """Train the network of SOLVER, a solver prototxt.

    \b
    netdef train solver.prototxt
    netdef train solver.prototxt --snapshot lenet_iter_5000.solverstate
    netdef train solver.prototxt --weights lenet_iter_10000.caffemodel
    """
    if solver_file and solver:
        raise click.UsageError("give the solver once: netdef train SOLVER")
    path = solver_file or solver
    if not path:
        raise click.UsageError("which solver? netdef train SOLVER")
    if snapshot and weights:
        raise click.UsageError("give --snapshot to resume or --weights to fine-tune, not both")
    if weights and not split_list(weights):
        raise click.UsageError(f'--weights names no file: "{weights}"')
    signals = Signals(sigint_effect, sighup_effect)
    with running(
        options["threads"], options["gpu"], options["log_format"], options["lenient"]
    ) as listener:
        from netdef.solver import Solver

        trainer = Solver(
            path,
            weights=[weights] if weights else [],
            # caffe train adds an empty stage where none is given, and its logs show it.
            stages=split_list(options["stage"]) or [""],
            level=options["level"],
            listeners=[listener],
            action=signals.action,
            resuming=snapshot is not None,
            skip_mismatch=skip_mismatch,
            keep=(),  # nobody looks at blobs
        )
        try:
            # Only from here on is there something to save: before, a Ctrl-C just ends the command.
            with signals.caught():
                trainer.solve(snapshot)
        finally:
            trainer.close()
