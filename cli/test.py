"""``netdef test``: score saved weights on a test set."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from .running import Command, caffe_option, run_options, running, split_list

if TYPE_CHECKING:
    from netdef.events import Listener
    from netdef.proto import netdef_pb2 as pb
    from netdef.prototxt import Document


@click.command(cls=Command, no_args_is_help=True)
@click.argument("solver_file", metavar="[SOLVER]", required=False, type=click.Path())
@caffe_option("model", type=click.Path(), help="The net, a prototxt.")
@caffe_option("weights", default="", help="The .caffemodel, or several, comma-separated.")
@caffe_option("snapshot", type=click.Path(), help="A .solverstate, for the net of SOLVER.")
@caffe_option(
    "iterations", type=click.IntRange(1), help="Batches to run; else the whole test set, once."
)
@click.option("--skip-mismatch", is_flag=True, help="Leave out layers whose weights do not fit.")
@run_options
def test(
    solver_file: str | None,
    model: str | None,
    weights: str,
    snapshot: str | None,
    iterations: int | None,
    skip_mismatch: bool,
    **options: Any,
) -> None:
    """Score a net on its test set, with saved weights.

    \b
    netdef test --model lenet.prototxt --weights lenet_iter_10000.caffemodel
    netdef test solver.prototxt --snapshot lenet_iter_5000.solverstate
    """
    if solver_file and (model or weights):
        raise click.UsageError("give SOLVER with --snapshot, or --model with --weights")
    if solver_file and not snapshot:
        raise click.UsageError("which weights? netdef test SOLVER --snapshot F.solverstate")
    if not solver_file and not (model and weights):
        raise click.UsageError("give --model and --weights, or SOLVER and --snapshot")
    if weights and not split_list(weights):
        raise click.UsageError(f'--weights names no file: "{weights}"')
    if snapshot and not solver_file:
        raise click.UsageError("--snapshot goes with SOLVER; with --model give --weights")
    with running(
        options["threads"], options["gpu"], options["log_format"], options["lenient"]
    ) as listener:
        from netdef import prototxt
        from netdef.evaluate import evaluate
        from netdef.proto import netdef_pb2 as pb

        if solver_file and snapshot:
            document, state, files = _of_solver(solver_file, snapshot, listener)
        else:
            document, state = prototxt.read(str(model), pb.NetParameter), pb.NetState()
            files = split_list(weights)
        evaluate(
            document,
            files,
            iterations=iterations,
            state=state,
            level=options["level"],
            stages=split_list(options["stage"]),
            skip_mismatch=skip_mismatch,
            emit=listener,
        )


def _of_solver(
    solver_file: str, snapshot: str, listener: Listener
) -> tuple[Document[pb.NetParameter], pb.NetState, list[str]]:
    """The net a solver tests, its state, and the weights of a snapshot."""
    from netdef.snapshot import find_learned_net, read_state
    from netdef.solver import test_net_of

    model = find_learned_net(read_state(snapshot), snapshot)
    return *test_net_of(solver_file, listener), [model]
