"""Python: layers that users wrote, what they find, and what is said of their mistakes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import netdef
from netdef.errors import NetError
from netdef.net import Net
from netdef.proto import netdef_pb2 as pb
from netdef.testing import Case, Mistake

FOLDER = Path(__file__).parent
if str(FOLDER) not in sys.path:
    sys.path.append(str(FOLDER))


def python(layer: str, more: str = "", module: str = "user_layers") -> str:
    return f'type: "Python" python_param {{ module: "{module}" layer: "{layer}" {more} }}'


X = (4, 3)
TOP = ' top: "y"'

CASES = [
    Case(
        python("Distance") + TOP,
        [X, X],
        lambda a, b: np.array([((a - b) ** 2).sum() / 8]),
        in_place=False,
    ),
    Case(python("Gain") + TOP, [X], lambda x, gain: gain * x),
    Case(python("Gain", "share_in_parallel: true") + TOP, [(0, 3)], lambda x, gain: x),
    Case(python("Positive") + TOP, [(6, 2)], lambda x: x[x[:, 0] > 0], in_place=False),
]

MISTAKES = [
    Mistake(
        python("Distance") + TOP, [X], "Distance: setup: two inputs are needed", "python_param"
    ),
    Mistake(
        python("Distance") + TOP,
        [X, (4, 2)],
        "Distance: reshape: the inputs must have one shape",
        "python_param",
    ),
    Mistake(
        python("TwoLines") + TOP, [X], "TwoLines: setup: shapes do not fit: 2 and 3", "python_param"
    ),
    Mistake(
        python("Distnace") + TOP, [X], 'module "user_layers" has no class "Distnace"', '"Distnace"'
    ),
    Mistake(python("NOT_A_CLASS") + TOP, [X], 'no class "NOT_A_CLASS"', '"NOT_A_CLASS"'),
    Mistake(
        python("Gain", module="user_layerz") + TOP,
        [X],
        'there is no module "user_layerz"',
        '"user_layerz"',
    ),
    Mistake(
        python("Gain", module="user_layers_missing") + TOP,
        [X],
        'module "user_layers_missing" needs module "module_that_nobody_has"',
        '"user_layers_missing"',
    ),
    Mistake(
        python("Gain", module="user_layers_broken") + TOP,
        [X],
        'import of module "user_layers_broken": the module is broken',
        "python_param",
    ),
    Mistake('type: "Python"' + TOP, [X], "module is missing", "layer"),
    Mistake(
        'type: "Python" python_param { module: "user_layers" }' + TOP,
        [X],
        "layer is missing",
        "python_param",
    ),
    Mistake(python("BadForward") + TOP, [X], "forward: division by zero", "python_param"),
    Mistake(
        python("Gain", 'param_str: "x"') + TOP,
        [X],
        "setup: could not convert string to float",
        "python_param",
    ),
    Mistake(python("OnlyShapes") + TOP, [X], "forward(self, bottom, top) is not", "python_param"),
]


def net(text: str, phase: int = pb.TRAIN) -> Net:
    return Net.from_text(text, phase, seed=1)


def behind_input(layer: str, more: str = "", top: str = "y") -> str:
    """A net of an input x and the layer a, and what follows it."""
    own = f'layer {{ name: "a" bottom: "x" top: "{top}" {layer} }}\n'
    return f"force_backward: true\n{INPUT}{own}{more}"


INPUT = 'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 4 dim: 3 } } }\n'


def test_the_error_names_the_line_of_the_users_code() -> None:
    with pytest.raises(NetError) as caught:
        net(behind_input(python("BadSetup")))
    [said] = caught.value.diagnostics
    lines = (FOLDER / "user_layers.py").read_text("utf-8").splitlines()
    line = lines.index("        self.nothing.at_all()") + 1
    assert said.hint.endswith(f"user_layers.py:{line}")
    assert said.hint.startswith("AttributeError at ")


@pytest.mark.parametrize(
    ("source", "hint"),
    [
        ("def f(:\n", "SyntaxError at {file}:1"),
        ("\nimport os\nos.path.join(3)\n", "TypeError at "),
        ("import caffe\n\ncaffe.Blob.zeros((-1,))\n", "ValueError at {file}:3"),
    ],
)
def test_an_import_that_fails_is_placed(
    source: str, hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "broken_here.py"
    file.write_text(source, encoding="utf-8")
    with pytest.raises(NetError) as caught:
        net(behind_input(python("A", module="broken_here")))
    [said] = caught.value.diagnostics
    assert said.hint.startswith(hint.format(file=file))
    assert "importlib" not in said.hint


def test_a_module_that_cannot_have_this_name() -> None:
    with pytest.raises(NetError) as caught:
        net(behind_input(python("A", module=".")))
    assert caught.value.diagnostics[0].hint == "TypeError"


def test_a_parameter_starts_as_setup_left_it_and_is_saved(tmp_path: Path) -> None:
    text = behind_input(python("Gain", 'param_str: "2.5"'))
    first = net(text)
    assert first.params["a"][0].data.tolist() == [2.5]
    first.params["a"][0].data[...] = 7
    first.save(str(tmp_path / "a.caffemodel"))
    second = net(text)
    second.copy_from(str(tmp_path / "a.caffemodel"))
    second.blobs["x"].data[...] = 2
    second.forward()
    assert (second.blobs["y"].data == 14).all()


def test_a_source_may_change_its_shape_from_pass_to_pass() -> None:
    text = (
        f'layer {{ name: "a" {python("Counter")} top: "n" top: "testing" }}\n'
        'layer { name: "p" type: "ReLU" bottom: "n" top: "p" }\n'
    )
    for phase in (pb.TRAIN, pb.TEST):
        counter = net(text, phase)
        for batch in range(3):
            counter.forward()
            assert counter.blobs["p"].data.tolist() == [[batch, batch]] * (batch + 1)
            assert counter.blobs["testing"].data.tolist() == [phase == pb.TEST]


def test_what_follows_takes_the_shape_that_forward_gave() -> None:
    follows = 'layer { name: "z" type: "ReLU" bottom: "y" top: "z" }'
    made = net(behind_input(python("Positive"), follows))
    for rows in ([1, -1, 1, -1], [1, 1, 1, 1], [-1, -1, -1, -1]):
        kept = [row > 0 for row in rows]
        made.blobs["x"].data[...] = np.array(rows)[:, None]
        made.forward()
        assert made.blobs["z"].shape == (sum(kept), 3)
        made.blobs["z"].diff[...] = 5
        made.backward()
        assert made.blobs["x"].diff[:, 0].tolist() == [5.0 * k for k in kept]


def test_a_gradient_that_is_not_written_is_zero() -> None:
    made = net(behind_input(python("Silent")))
    made.forward()
    for blob in made.blobs.values():
        blob.diff[...] = 3
    made.backward()
    assert (made.blobs["x"].diff == 0).all()


def test_in_place() -> None:
    made = net(behind_input(python("Gain", 'param_str: "3"'), top="x"))
    made.blobs["x"].data[...] = 2
    made.forward()
    assert (made.blobs["x"].data == 6).all()
    made.blobs["x"].diff[...] = 1
    made.backward()
    assert (made.blobs["x"].diff == 3).all()


def test_import_caffe_gives_netdef() -> None:
    net(behind_input(python("Silent")))
    if sys.modules["caffe"] is not netdef:
        pytest.skip("a Caffe is installed here")
    import caffe  # type: ignore[import-not-found]
    from caffe.proto import caffe_pb2  # type: ignore[import-not-found]

    assert caffe.Layer is netdef.Layer
    assert caffe_pb2.NetParameter is pb.NetParameter


def test_a_module_of_the_current_folder_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    source = (FOLDER / "user_layers.py").read_text("utf-8")
    (tmp_path / "only_here.py").write_text(source, encoding="utf-8")
    before: Any = list(sys.path)
    made = net(behind_input(python("Silent", module="only_here")))
    assert sys.path == before
    made.blobs["x"].data[...] = 4
    made.forward()
    assert (made.blobs["y"].data == 4).all()
    del sys.modules["only_here"]
