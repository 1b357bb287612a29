"""WindowData: windows of images, drawn at random, each warped to one size."""

from __future__ import annotations

import numpy as np

from netdef.blob import Shape
from netdef.data.windows import CHANNELS, Cropper, WindowReader, Windows
from netdef.errors import did_you_mean
from netdef.layer import MOST_VALUES, register
from netdef.layers.common.records import RecordLayer

MODES = ("warp", "square")


@register("WindowData", config="window_data_param")
class WindowData(RecordLayer):
    """Draws windows of objects and of background from images, and warps each to a square.

        bottom  none
        top     data   [batch_size, 3, crop_size, crop_size], channels blue, green and red
                label  [batch_size]; 0 is background

    ``source`` is a window file::

        # 0
        000005.jpg
        3
        375
        500
        2
        9 0.85 263 211 324 339
        0 0.10 10 20 100 90

    that is, for each image: its index, path, channels, height, width, number of windows; then for
    each window its class, its overlap with an object, and the corners x1, y1, x2, y2, both inside
    it. Channels, height and width are not used, as in Caffe; images are decoded to three channels.

    Each batch holds batch_size * fg_fraction foreground windows, rounded down, and before them
    background windows, drawn with replacement. A window is foreground if its overlap is at least
    ``fg_threshold``, else background if it is below ``bg_threshold``, else it is never drawn.

    It is widened so that in the crop there are ``context_pad`` pixels around what it was; "square"
    widens its shorter side first. What then lies beyond the image is 0, the mean after subtraction.
    Of a ``mean_file`` the middle is taken. ``mirror`` flips half of the windows, in either phase.
    What is drawn depends on the seed and on how many records came before, not on threads; several
    of them decode and warp, as for ``Data``.

    As in Caffe 1.0, ``scale`` is that of ``window_data_param``, while ``crop_size``, ``mirror`` and
    the mean are those of ``transform_param``.

    Example::

        layer {
          name: "windows"
          type: "WindowData"
          top: "data"
          top: "label"
          transform_param {
            mirror: true
            crop_size: 227
            mean_value: 104
            mean_value: 117
            mean_value: 123
          }
          window_data_param {
            source: "examples/images/windows.txt"
            root_folder: "examples/images/"
            batch_size: 128
            fg_threshold: 0.5
            bg_threshold: 0.5
            fg_fraction: 0.25
            context_pad: 16
            crop_mode: "warp"
          }
        }

    Source: Girshick, Donahue, Darrell & Malik, "Rich feature hierarchies for accurate object
    detection and semantic segmentation", CVPR 2014.
    """

    _windows: Windows | None = None

    def shapes(self, *bottoms: Shape) -> list[Shape]:
        c, size = self.config, self.message.transform_param.crop_size
        if size < 1:
            raise self.error(
                "crop_size, the side of the crops, must be given",
                "transform_param",
                "crop_size",
                hint="transform_param { crop_size: 227 }",
            )
        if CHANNELS * size**2 > MOST_VALUES:
            raise self.error(
                f"a crop would be {CHANNELS}x{size}x{size}: more than 2^31 - 1 values",
                "transform_param",
                "crop_size",
            )
        if 2 * c.context_pad >= size:
            raise self.error(
                f"context_pad {c.context_pad} on both sides leaves nothing of crop_size {size}",
                self._field,
                "context_pad",
            )
        if c.crop_mode not in MODES:
            raise self.error(
                f'crop_mode is "{c.crop_mode}", but must be "warp" or "square"',
                self._field,
                "crop_mode",
                hint=did_you_mean(c.crop_mode, MODES),
            )
        if not 0 <= c.fg_fraction <= 1:
            raise self.error(
                f"fg_fraction is {c.fg_fraction:g}, but must be from 0 to 1",
                self._field,
                "fg_fraction",
            )
        return super().shapes(*bottoms)

    def open(self) -> WindowReader:
        c, transform = self.config, self.message.transform_param
        cropper = Cropper(c, transform, self.dtype)
        if self._windows is None:
            self._windows = Windows(c)
        foreground = int(np.float32(c.batch_size) * np.float32(c.fg_fraction))
        return WindowReader(self._windows, cropper, transform.mirror, c.batch_size, foreground)

    def doubt(self) -> str:
        if self.message.transform_param.HasField("scale"):
            return "transform_param.scale is ignored, as in Caffe: move it to window_data_param"
        return ""
