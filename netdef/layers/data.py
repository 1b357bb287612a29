"""Data: the records of a database, batch by batch."""

from __future__ import annotations

from netdef.data.batches import ImageReader
from netdef.data.datum import DatumImages
from netdef.data.source import RecordError, open_source, wrong_backend
from netdef.data.transform import Transform
from netdef.layer import register
from netdef.layers.common.records import RecordLayer
from netdef.proto import netdef_pb2 as pb


@register("Data", config="data_param")
class Data(RecordLayer):
    """Reads labelled images from a database, in order and from the start again after the last.

        bottom  none
        top     data   [batch_size, C, H, W]; H and W are crop_size where that is given
                label  optional: [batch_size]

    A record is a ``Datum``: bytes, floats, or an encoded image. A batch takes the shape of its
    first record, and all of its records must agree with it. The folder says whether it is an LMDB
    or a LevelDB; where ``backend`` says otherwise, there is a warning. ``rand_skip`` starts at one
    of so many first records. Crops and mirroring depend on the seed and on how many records came
    before, not on threads, so a resumed run goes on exactly.

    Batches are made ahead while the net computes, ``prefetch`` of them. Encoded images are shared
    out among threads: as many as there are cores that kernels leave free, or as many as there are
    cores where they leave none; ``NETDEF_DATA_THREADS`` in the environment says otherwise. If the
    net still waits for more than 5 % of the time, it is told.

    Example::

        layer {
          name: "mnist"
          type: "Data"
          top: "data"
          top: "label"
          transform_param {
            scale: 0.00390625
          }
          data_param {
            source: "examples/mnist/mnist_train_lmdb"
            batch_size: 64
            backend: LMDB
          }
        }

    Deviations: Caffe 1.0 ignores ``rand_skip``.

    Source: Jia et al., "Caffe: convolutional architecture for fast feature embedding", ACM MM
    2014.
    """

    tops = (1, 2)
    tells_ends = True
    _wrong_backend = ""

    def open(self) -> ImageReader:
        transform = Transform(self.message.transform_param, self.phase == pb.TRAIN, self.dtype)
        if self.config.force_encoded_color:
            if transform.color is False:
                raise RecordError(
                    "both force_encoded_color and force_gray are set",
                    ("force_encoded_color",),
                )
            transform.color = True
        source = open_source(self.config)
        self._wrong_backend = wrong_backend(self.config, source)
        images = DatumImages(source, transform.color)
        return ImageReader(images, transform, self.config.batch_size, self.config.rand_skip)

    def doubt(self) -> str:
        return self._wrong_backend
