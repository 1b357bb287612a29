"""ImageData: the images that a list names, batch by batch."""

from __future__ import annotations

from netdef.blob import Shape
from netdef.data.batches import ImageReader
from netdef.data.image_list import ImageList
from netdef.data.images import MOST_PIXELS
from netdef.data.transform import Transform
from netdef.layer import register
from netdef.layers.common.records import RecordLayer
from netdef.proto import netdef_pb2 as pb


@register("ImageData", config="image_data_param")
class ImageData(RecordLayer):
    """Reads labelled images from the files that a list names, and from the start again.

        bottom  none
        top     data   [batch_size, C, H, W]; C is 3 (blue, green, red), or 1 without is_color;
                       H and W are crop_size, else new_height and new_width, else those of the image
                label  [batch_size]

    Each line of the list is a path, a space and an integer label; the label follows the last space,
    so paths may hold some. Blank lines and blanks after the label are ignored. ``root_folder`` is
    put before each path as it is. A batch takes the shape of its first image, and all of its images
    must agree with it; from batch to batch the shape may change.

    Images are decoded and resized as OpenCV does it; then ``transform_param`` says how they are
    cropped and mirrored, what mean is subtracted and by what they are multiplied. Its
    ``force_color`` and ``force_gray`` have no effect here.
    ``shuffle`` draws a new order in every epoch. That order, crops and mirroring depend on the seed
    and on how many images came before, not on threads, so a resumed run goes on exactly.
    ``rand_skip`` starts at one of so many first images. ``prefetch`` in ``data_param`` says how
    many batches are made ahead, as in Caffe; several threads read and decode, as for ``Data``.

    Example::

        layer {
          name: "photos"
          type: "ImageData"
          top: "data"
          top: "label"
          transform_param {
            crop_size: 224
            mirror: true
            mean_value: 104
            mean_value: 117
            mean_value: 123
          }
          image_data_param {
            source: "examples/images/train.txt"
            root_folder: "examples/images/"
            batch_size: 32
            shuffle: true
            new_height: 256
            new_width: 256
          }
        }

    Source: Caffe 1.0.
    """

    _list: ImageList | None = None

    def shapes(self, *bottoms: Shape) -> list[Shape]:
        height, width = self.config.new_height, self.config.new_width
        if (height == 0) != (width == 0):
            given, missing = ("new_width", "new_height")[:: 1 if width else -1]
            raise self.error(
                f"{given} is given, but {missing} is not", self._field, given, hint="give both"
            )
        if height * width > MOST_PIXELS:
            raise self.error(
                f"images of {height} x {width} would have more than 2^30 pixels",
                self._field,
                "new_height",
            )
        return super().shapes(*bottoms)

    def open(self) -> ImageReader:
        transform = Transform(self.message.transform_param, self.phase == pb.TRAIN, self.dtype)
        if self._list is None:
            self._list = ImageList(self.config)
        return ImageReader(self._list, transform, self.config.batch_size, self.config.rand_skip)

    def doubt(self) -> str:
        transform = self.message.transform_param
        if transform.force_color or transform.force_gray:
            return "force_color and force_gray have no effect: is_color says how to decode"
        return ""
