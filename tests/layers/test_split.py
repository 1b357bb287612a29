"""Split: one blob for several readers, whose gradients add up."""

from __future__ import annotations

from netdef.testing import Case, Mistake

X = (2, 3, 5)

CASES = [
    Case('type: "Split"', [X], lambda x: x),
    Case('type: "Split" top: "a" top: "b"', [X], lambda x: (x, x)),
    Case('type: "Split" top: "a" top: "b" top: "c" top: "d"', [X], lambda x: (x, x, x, x)),
    Case('type: "Split" top: "a" top: "b"', [(0, 2)], lambda x: (x, x)),
]

MISTAKES = [
    Mistake('type: "Split"', [X, X], "takes 1 bottom blob, but 2 given", '"x1"'),
    Mistake('type: "Split" top: "x0"', [X], 'cannot work in place on "x0"', '"x0"'),
    Mistake(
        'type: "Split" top: "a" top: "a"',
        [X],
        'Top blob "a" is produced by multiple sources: twice by this layer',
        '"a"',
    ),
    Mistake(
        'type: "Split" top: "a" top: "b" loss_weight: 1',
        [X],
        "has 2 tops but 1 loss_weight",
        "1",
    ),
]
