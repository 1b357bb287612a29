"""MemoryData: the batches of arrays that Python hands over."""

from __future__ import annotations

import numpy as np

from netdef.blob import Array, Blob, Shape, shape_text
from netdef.errors import DataError, NetdefError
from netdef.layer import register
from netdef.layers.common.arrays import check_counts
from netdef.layers.common.records import DataLayer


@register("MemoryData", config="memory_data_param")
class MemoryData(DataLayer):
    """Delivers arrays that ``net.set_input_arrays(data, labels)`` gave it, a batch at a time.

        bottom  none
        top     data   [batch_size, channels, height, width]
                label  [batch_size]

    Each pass takes the next ``batch_size`` images, whose number must be a multiple of it, and after
    the last the first again. The arrays are not copied when they are set: what is written into them
    later is delivered. Setting arrays starts from the first image. ``transform_param`` has no
    effect, as in Caffe.

    Example::

        layer {
          name: "data"
          type: "MemoryData"
          top: "data"
          top: "label"
          memory_data_param {
            batch_size: 32
            channels: 3
            height: 32
            width: 32
          }
        }

    Deviations: the label top keeps its one axis; Caffe gives it three more in the first pass.

    Source: Caffe 1.0.
    """

    _data: Array | None = None
    _labels: Array | None = None

    def shapes(self, *bottoms: Shape) -> list[Shape]:
        c = self.config
        check_counts(self, "memory_data_param", "batch_size", "channels", "height", "width")
        return [(c.batch_size, c.channels, c.height, c.width), (c.batch_size,)]

    def set_arrays(self, data: Array, labels: Array) -> None:
        """Deliver these from now on; ``Net.set_input_arrays`` says what they are.

        Raises ValueError where they do not fit.
        """
        c = self.config
        image = (c.channels, c.height, c.width)
        for name, array in (("data", data), ("labels", labels)):
            if not isinstance(array, np.ndarray) or array.dtype != np.float32:
                kind = getattr(array, "dtype", type(array).__name__)
                raise ValueError(f"{name} must be an array of float32, not {kind}")
            if not array.flags.c_contiguous:
                raise ValueError(f"{name} must be C-contiguous: np.ascontiguousarray makes it so")
        if data.ndim != 4 or data.shape[1:] != image:
            raise ValueError(f"data must be n x {shape_text(image)}, not {shape_text(data.shape)}")
        if labels.shape not in ((len(data),), (len(data), 1, 1, 1)):
            raise ValueError(
                f"labels must be {len(data)}, or {len(data)}x1x1x1, as there is that much data, "
                f"not {shape_text(labels.shape)}"
            )
        if len(data) == 0 or len(data) % c.batch_size:
            raise ValueError(
                f"data must be a multiple of the batch_size {c.batch_size}, not {len(data)} images"
            )
        self._data, self._labels = data, labels.reshape(-1)
        self._records = 0

    @property
    def size(self) -> int:
        """How many images were set."""
        if self._data is None:
            raise self._no_data()
        return len(self._data)

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        if self._data is None or self._labels is None:
            raise self._no_data()
        count = self.config.batch_size
        start = self._records // count * count % len(self._data)
        top[0].data[...] = self._data[start : start + count]
        top[1].data[...] = self._labels[start : start + count]
        self._records += count

    def _no_data(self) -> NetdefError:
        return self.error(
            "no data was set", hint="net.set_input_arrays(data, labels)", kind=DataError
        )
