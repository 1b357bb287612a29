"""DummyData: blobs from fillers, for tests and timing."""

from __future__ import annotations

from netdef import fillers
from netdef.blob import Blob, Shape
from netdef.errors import NetError
from netdef.layer import Layer, register
from netdef.layers.common.axes import shapes_of_tops
from netdef.proto import netdef_pb2 as pb


@register("DummyData", config="dummy_data_param")
class DummyData(Layer):
    """Fills its tops: with the filler ``constant`` once, with any other anew in each pass.

        bottom  none
        top     x0, x1, ...  as ``shape`` says: one shape for all tops, or one for each

    ``data_filler`` likewise, or none: then all is 0. The older fields ``num``, ``channels``,
    ``height`` and ``width`` together stand for a shape of 4 axes, each with one value for all tops,
    or one for each.

    Example::

        layer {
          name: "noise"
          type: "DummyData"
          top: "data"
          top: "label"
          dummy_data_param {
            shape {
              dim: 8
              dim: 3
              dim: 32
              dim: 32
            }
            shape {
              dim: 8
            }
            data_filler {
              type: "gaussian"
              std: 1
            }
            data_filler {
              type: "constant"
              value: 0
            }
          }
        }

    Source: Caffe 1.0.
    """

    bottoms = 0
    tops = (1, None)

    def shapes(self, *bottoms: Shape) -> list[Shape]:
        c, tops = self.config, len(self.message.top)
        if len(c.data_filler) not in (0, 1, tops):
            raise self.error(
                f"has {tops} tops but {len(c.data_filler)} data_filler: "
                "give none, one, or one for each",
                "dummy_data_param",
                "data_filler",
                0,
            )
        older = {name: list(getattr(c, name)) for name in ("num", "channels", "height", "width")}
        if not any(older.values()):
            return shapes_of_tops(self, "dummy_data_param")
        if c.shape:
            raise self.error(
                "give shape, or num, channels, height and width, not both",
                "dummy_data_param",
                "shape",
            )
        for name, values in older.items():
            if len(values) not in (1, tops):
                raise self.error(
                    f"has {tops} tops but {len(values)} {name}: give one for all, or one for each",
                    "dummy_data_param",
                    *((name, 0) if values else ()),
                )
        return [
            tuple(int(values[i if len(values) > 1 else 0]) for values in older.values())
            for i in range(tops)
        ]

    def setup(self, bottom: list[Blob], top: list[Blob]) -> None:
        for i, blob in enumerate(top):
            self._fill(i, blob)

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        for i, blob in enumerate(top):
            if self._filler(i).type != "constant":
                self._fill(i, blob)

    def backward(self, top: list[Blob], bottom: list[Blob]) -> None:
        pass

    def _filler(self, top: int) -> pb.FillerParameter:
        given = self.config.data_filler
        if not given:
            return pb.FillerParameter()
        found: pb.FillerParameter = given[top] if len(given) > 1 else given[0]
        return found

    def _fill(self, top: int, blob: Blob) -> None:
        # Each top has a stream of its own: they must not hold the same numbers.
        key = self.key + type(self.key)(top)
        try:
            fillers.fill(self._filler(top), blob.data, key, int(self.iteration))
        except NetError as error:
            index = top if len(self.config.data_filler) > 1 else 0
            path = ("dummy_data_param", "data_filler", index, "type")
            raise self.located(error, *path) from error
