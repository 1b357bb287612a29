"""DummyData: blobs from fillers, for tests and timing."""

from __future__ import annotations

from netdef import fillers
from netdef.blob import Blob, Shape
from netdef.errors import NetError
from netdef.layer import Layer, register
from netdef.proto import netdef_pb2 as pb


@register("DummyData", config="dummy_data_param")
class DummyData(Layer):
    """Fills its tops: constant ones once, random ones anew in each pass.

    bottom  none
    top     x0, x1, ...  shapes from ``shape``, or from num, channels, height, width (deprecated);
                         one for all tops, or one for each

    ``data_filler``: none (all 0), one for all tops, or one for each.
    """

    bottoms = 0
    tops = (1, None)

    def shapes(self, *bottoms: Shape) -> list[Shape]:
        c, tops = self.config, len(self.message.top)
        legacy = [list(c.num), list(c.channels), list(c.height), list(c.width)]
        if c.shape and any(legacy):
            raise self.error(
                "give shape, or num, channels, height and width, not both", "dummy_data_param"
            )
        if len(c.data_filler) not in (0, 1, tops):
            raise self.error(
                f"has {tops} tops but {len(c.data_filler)} data_filler: "
                "give none, one, or one for each",
                "dummy_data_param",
                "data_filler",
                0,
            )
        if any(legacy):
            if any(len(values) not in (1, tops) for values in legacy):
                raise self.error(
                    "num, channels, height and width need one value, "
                    f"or one for each of {tops} tops",
                    "dummy_data_param",
                )
            wide = [values if len(values) == tops else values * tops for values in legacy]
            return [tuple(int(values[i]) for values in wide) for i in range(tops)]
        given = [tuple(shape.dim) for shape in c.shape]
        if len(given) not in (1, tops):
            raise self.error(
                f"has {tops} tops but {len(given)} shapes: give one for all, or one for each",
                "dummy_data_param",
            )
        if any(n < 0 for shape in given for n in shape):
            raise self.error(f"a dimension cannot be negative: {given}", "dummy_data_param")
        return given if len(given) == tops else given * tops

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
            first = error.diagnostics[0]
            index = top if len(self.config.data_filler) > 1 else 0
            path = ("dummy_data_param", "data_filler", index, "type")
            raise self.error(first.message, *path, hint=first.hint) from error
