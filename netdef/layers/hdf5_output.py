"""HDF5Output: writes its bottoms to an HDF5 file."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from netdef.blob import Blob, Shape, shape_text
from netdef.errors import OutputError
from netdef.files import probe_folder
from netdef.hdf5 import RowWriter
from netdef.layer import Layer, register
from netdef.layers.common.axes import to_four_axes


@register("HDF5Output", config="hdf5_output_param")
class HDF5Output(Layer):
    """Writes rows as they come to the datasets "data" and "label" of a file.

        bottom  data   [N, ...], up to 4 axes
                label  [N, ...], up to 4 axes
        top     none

    Each forward pass adds its N rows, of any net and phase the layer stands in: give it an
    ``include`` where only one is wanted. The first pass replaces an older file. Between two passes
    the file is whole, and can be read; HDF5Data reads it with tops of these names. As in Caffe the
    datasets have 4 axes, the last ones 1 where a bottom has fewer. Its bottoms have no gradient
    from it.

    Example::

        layer {
          name: "features"
          type: "HDF5Output"
          bottom: "fc7"    # 64x4096
          bottom: "label"  # 64
          include {
            phase: TEST
          }
          hdf5_output_param {
            file_name: "features.h5"
          }
        }

    Deviations: the second pass adds to the file, where Caffe aborts because the datasets exist.

    Source: Caffe 1.0.
    """

    bottoms = 2
    tops = 0
    backward_reads = ()

    _writer: RowWriter | None = None

    def shapes(self, *bottoms: Shape) -> list[Shape]:
        if not self.config.file_name:
            raise self.error("no file_name is given", "hdf5_output_param")
        for i, shape in enumerate(bottoms):
            if len(shape) > 4:
                raise self.error(
                    f"needs bottoms of at most 4 axes, but this is {shape_text(shape)}",
                    "bottom",
                    i,
                )
        data, label = (to_four_axes(shape)[0] for shape in bottoms)
        if data != label:
            raise self.error(
                f"data and label must have as many rows, but are {shape_text(bottoms[0])} and "
                f"{shape_text(bottoms[1])}",
                "bottom",
                1,
            )
        return []

    def setup(self, bottom: list[Blob], top: list[Blob]) -> None:
        if self._writer is None:
            with self._explained():
                probe_folder(self.config.file_name)
            self._writer = RowWriter(self.config.file_name)

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        assert self._writer is not None
        data, label = (blob.data.reshape(to_four_axes(blob.shape)) for blob in bottom)
        with self._explained():
            self._writer.add({"data": data, "label": label})

    def backward(self, top: list[Blob], bottom: list[Blob]) -> None:
        for blob in bottom:
            if blob.diff is not None:
                blob.diff.fill(0)

    def follow(self, other: Layer) -> None:
        assert isinstance(other, HDF5Output)
        self._writer = other._writer

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OutputError as error:
            raise self.located(error, "hdf5_output_param", "file_name") from error
