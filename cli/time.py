"""``netdef time``: how long each layer of a net takes."""

from __future__ import annotations

from typing import Any

import click

from .running import Command, caffe_option, run_options, running, split_list


@click.command(cls=Command, no_args_is_help=True)
@caffe_option("model", type=click.Path(), required=True, help="The net, a prototxt.")
@caffe_option("weights", default="", help="Start from these .caffemodel files, comma-separated.")
@click.option("--skip-mismatch", is_flag=True, help="Leave out layers whose weights do not fit.")
@caffe_option(
    "iterations",
    type=click.IntRange(1),
    default=50,
    show_default=True,
    help="Forward and backward passes to take the mean of.",
)
@caffe_option(
    "phase",
    type=click.Choice(["TRAIN", "TEST"], case_sensitive=False),
    default="TRAIN",
    metavar="[TRAIN|TEST]",
    show_default=True,
    help="Phase of the net.",
)
@run_options
def time(
    model: str,
    weights: str,
    skip_mismatch: bool,
    iterations: int,
    phase: str,
    **options: Any,
) -> None:
    """Time a net layer by layer, forward and backward.

    Beside the time of each layer stand the GFLOP/s of its matrix products, and the GB/s of what it
    has to read and write at least.

    \b
    netdef time --model lenet.prototxt
    netdef time --model deploy.prototxt --phase TEST --iterations 10 --threads 1
    """
    if weights and not split_list(weights):
        raise click.UsageError(f'--weights names no file: "{weights}"')
    with running(
        options["threads"], options["gpu"], options["log_format"], options["lenient"]
    ) as listener:
        from netdef import prototxt
        from netdef.proto import netdef_pb2 as pb
        from netdef.timing import time_file

        time_file(
            prototxt.read(model, pb.NetParameter),
            split_list(weights),
            skip_mismatch=skip_mismatch,
            iterations=iterations,
            phase=pb.Phase.Value(phase.upper()),
            level=options["level"],
            # caffe time adds an empty stage where none is given, and its logs show it.
            stages=split_list(options["stage"]) or [""],
            emit=listener,
        )
