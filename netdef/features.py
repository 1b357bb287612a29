"""What a net makes of records, blob by blob, as databases: Caffe's extract_features."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

from netdef import prototxt
from netdef.blob import Array, Shape, shape_text
from netdef.data.writer import Database, DatabaseWriter, Progress, ignore
from netdef.errors import NetError, did_you_mean
from netdef.events import Listener
from netdef.net import Net
from netdef.proto import netdef_pb2 as pb

#: So many blobs are named where there is none that was meant.
MOST_NAMES = 20


def extract(
    model: str,
    weights: Sequence[str],
    blobs: Sequence[str],
    writers: Sequence[DatabaseWriter],
    batches: int | None = None,
    *,
    progress: Progress = ignore,
    emit: Listener | None = None,
) -> list[Database]:
    """Run the net in phase TEST and write each of ``blobs`` to the database beside it.

    A record is a Datum of floats without a label; its key is its number, ten digits, as in Caffe.
    ``batches``: how many are run; without it every record of the net's data layer is taken once.
    Raises NetdefError: the net, its data or the weights are wrong, or there is no such blob.
    """
    document = prototxt.read(model, pb.NetParameter)
    state = pb.NetState()
    state.MergeFrom(document.message.state)
    state.phase = pb.TEST
    net = Net.from_message(document.message, state, document.positions, keep=blobs, emit=emit)
    try:
        for name in blobs:
            if name not in net.blobs:
                known = list(
                    dict.fromkeys(top for layer in net.plan.net.layer for top in layer.top)
                )
                raise NetError(
                    f'the net has no blob "{name}"',
                    hint=did_you_mean(name, known) or f"there are {', '.join(known[:MOST_NAMES])}",
                )
            _size(name, net.blobs[name].data.shape)
        for path in weights:
            net.copy_from(path)
        records = _records(net) if batches is None else None
        with ExitStack() as stack:
            for writer in writers:
                stack.enter_context(writer)
            counts = _run(net, blobs, writers, batches, records, progress)
    finally:
        net.close()
    return [Database(writer.path, count) for writer, count in zip(writers, counts, strict=True)]


def _run(
    net: Net,
    blobs: Sequence[str],
    writers: Sequence[DatabaseWriter],
    batches: int | None,
    records: int | None,
    progress: Progress,
) -> list[int]:
    """How many records each database got: ``records``, or all of so many ``batches``."""
    counts = [0] * len(blobs)
    done = 0
    while counts[0] < records if records is not None else done < (batches or 0):
        net.program.forward()
        done += 1
        for i, (name, writer) in enumerate(zip(blobs, writers, strict=True)):
            values = net.blobs[name].data
            for row in values if values.ndim else values.reshape(1):
                if records is not None and counts[i] == records:
                    break
                writer.put(b"%010d" % counts[i], _datum(name, values.shape, row))
                counts[i] += 1
        if records is not None:
            progress("features", counts[0], records)
        else:
            progress("features", done, batches or 0)
    return counts


def _records(net: Net) -> int:
    """How many records the first data layer has."""
    if not net.program.sources:
        raise NetError(
            "the net has no data layer that knows its number of records",
            hint="say how many batches to run",
        )
    return int(net.program.sources[0].size)


def _size(name: str, shape: Shape) -> tuple[int, int, int]:
    """Channels, height and width of a record, as Caffe has them of a blob of up to four axes."""
    if len(shape) > 4:
        raise NetError(
            f'blob "{name}" is {shape_text(shape)}: a Datum has three sizes at most',
            hint="put a Flatten or Reshape layer behind it",
        )
    channels, height, width = (*shape[1:], 1, 1, 1)[:3]
    return channels, height, width


def _datum(name: str, shape: Shape, row: Array) -> bytes:
    channels, height, width = _size(name, shape)
    datum = pb.Datum(channels=channels, height=height, width=width)
    datum.float_data.extend(row.reshape(-1).tolist())
    return datum.SerializeToString()
