"""Silence: takes anything, gives nothing."""

from __future__ import annotations

from netdef.testing import Case, Mistake

CASES = [
    Case('type: "Silence"', [(2, 3)], lambda x: ()),
    Case('type: "Silence"', [(2, 3), (4,), (1, 2, 3, 4)], lambda x, y, z: ()),
    Case('type: "Silence"', [(0, 3)], lambda x: ()),
]

MISTAKES = [
    Mistake('type: "Silence"', [], "takes 1 or more bottom blobs, but 0 given", "layer"),
    Mistake('type: "Silence" top: "y"', [(2,)], "takes no top blobs, but 1 given", '"y"'),
    Mistake(
        'type: "Silence" param { lr_mult: 1 }',
        [(2,)],
        "has 1 param entries, but only 0 parameters",
        "param",
    ),
    Mistake('type: "Silence" loss_weight: 1', [(2,)], "has 0 tops but 1 loss_weight", "1"),
]
