"""HDF5Data: batches of rows from HDF5 files."""

from __future__ import annotations

from netdef.blob import Shape
from netdef.data.hdf5_rows import RowFiles, RowReader
from netdef.layer import register
from netdef.layers.common.records import RecordLayer


@register("HDF5Data", config="hdf5_data_param")
class HDF5Data(RecordLayer):
    """Rows of HDF5 files, file after file, and from the start again after the last.

        bottom  none
        top     x0, x1, ...  [batch_size, ...], each from the dataset of its own name

    The first axis of a dataset counts its rows; all datasets of a file must have as many, and those
    of one name the same further axes in all files. Integers and floats of any size are read, as
    floats. ``source`` is a text that names the files, one in each line, relative to the current
    folder; a batch may end one file and begin the next. A path may hold spaces, where Caffe would
    take it for two.

    With ``shuffle`` both files and the rows within each come in another order in every epoch, drawn
    from the seed; then a file is held in memory as a whole. All files are looked at when the net is
    built. ``prefetch`` in ``data_param`` says how many batches are made ahead.

    Example::

        layer {
          name: "data"
          type: "HDF5Data"
          top: "data"
          top: "label"
          hdf5_data_param {
            source: "train_h5_list.txt"
            batch_size: 64
            shuffle: true
          }
        }

    Source: Caffe 1.0.
    """

    tops = (1, None)
    dynamic = False
    also_reads = ()
    tells_ends = True

    _files: RowFiles | None = None

    def shapes(self, *bottoms: Shape) -> list[Shape]:
        if self.message.HasField("transform_param"):
            raise self.error("HDF5Data does not transform data", "transform_param")
        return super().shapes()

    def open(self) -> RowReader:
        if self._files is None:
            self._files = RowFiles(self.config, self.message.top)
        config = self.config
        return RowReader(self._files, config.batch_size, config.shuffle, self.dtype)
