"""Layers as users of Caffe write them, for test_python.py: nothing here knows of netdef."""

import caffe
import numpy as np
from caffe.proto import caffe_pb2


class Distance(caffe.Layer):
    """Half the mean squared distance, as the best-known example of a Python layer."""

    def setup(self, bottom, top):
        if len(bottom) != 2:
            raise Exception("two inputs are needed")

    def reshape(self, bottom, top):
        if bottom[0].count != bottom[1].count:
            raise Exception("the inputs must have one shape")
        self.diff = np.zeros_like(bottom[0].data)
        top[0].reshape(1)

    def forward(self, bottom, top):
        self.diff[...] = bottom[0].data - bottom[1].data
        top[0].data[...] = np.sum(self.diff**2) / bottom[0].num / 2.0

    def backward(self, top, propagate_down, bottom):
        for i, sign in ((0, 1), (1, -1)):
            if propagate_down[i]:
                bottom[i].diff[...] = sign * top[0].diff[0] * self.diff / bottom[i].num


class Gain(caffe.Layer):
    """y = gain * x, with the gain learned; it starts at param_str."""

    def setup(self, bottom, top):
        self.blobs.add_blob(1)
        self.blobs[0].data[...] = float(self.param_str or 1)

    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].shape)

    def forward(self, bottom, top):
        top[0].data[...] = self.blobs[0].data * bottom[0].data

    def backward(self, top, propagate_down, bottom):
        self.blobs[0].diff[...] += np.sum(top[0].diff * bottom[0].data)
        bottom[0].diff[...] = self.blobs[0].data * top[0].diff


class Positive(caffe.Layer):
    """Keeps the rows whose first value is positive: how many is known in forward only."""

    def reshape(self, bottom, top):
        top[0].reshape(1, *bottom[0].shape[1:])

    def forward(self, bottom, top):
        self.kept = bottom[0].data[:, 0] > 0
        top[0].reshape(int(self.kept.sum()), *bottom[0].shape[1:])
        top[0].data[...] = bottom[0].data[self.kept]

    def backward(self, top, propagate_down, bottom):
        bottom[0].diff[self.kept] = top[0].diff


class Counter(caffe.Layer):
    """A source: the batches 0, 1, 2, ... of a shape that grows."""

    def setup(self, bottom, top):
        self.batch = 0
        self.pass_through = caffe_pb2.NetParameter()

    def reshape(self, bottom, top):
        top[0].reshape(self.batch + 1, 2)
        top[1].reshape(1)

    def forward(self, bottom, top):
        top[0].data[...] = self.batch
        top[1].data[...] = self.phase == caffe.TEST
        self.batch += 1

    def backward(self, top, propagate_down, bottom):
        pass


class Silent(caffe.Layer):
    """Writes no gradient."""

    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].shape)

    def forward(self, bottom, top):
        top[0].data[...] = bottom[0].data

    def backward(self, top, propagate_down, bottom):
        pass


class BadSetup(Silent):
    def setup(self, bottom, top):
        self.nothing.at_all()


class TwoLines(Silent):
    def setup(self, bottom, top):
        raise ValueError("shapes do not fit:\n  2 and 3")


class BadForward(Silent):
    def forward(self, bottom, top):
        return 1 / 0


class OnlyShapes(caffe.Layer):
    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].shape)


NOT_A_CLASS = 3
