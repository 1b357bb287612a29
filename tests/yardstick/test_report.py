"""Records that grow, and the tables made of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from yardstick import report
from yardstick.record import Record, RecordError

MACHINE = {
    "processor": "Example 1",
    "cores": 2,
    "features": ["avx2"],
    "memory_gib": 8.0,
    "system": "Linux 6",
    "python": "3.11.0",
    "versions": {"netdef": "0.1.0", "torch": "2.0"},
}


def engine(median: float, memory: int = 0) -> dict[str, Any]:
    return {"median": median, "fastest": median, "steps": 5, "memory": memory}


def race(net: str, what: str = "train", threads: int = 2, **engines: Any) -> dict[str, Any]:
    return {
        "what": what,
        "net": net,
        "batch": 8,
        "threads": threads,
        "flops": 10**9,
        "engines": {name.replace("_", "-"): values for name, values in engines.items()},
        "caffe": None,
        "others": 0.0,
    }


def cells(table: report.Table) -> list[dict[str, str]]:
    return [dict(zip(table.heading, row, strict=True)) for row in table.rows]


def test_a_row_that_was_measured_again_takes_the_place_of_the_old() -> None:
    record = Record(MACHINE)
    record.put("races", race("vgg16", netdef=engine(1.0)))
    record.put("races", race("lenet", netdef=engine(1.0)))
    record.put("races", race("vgg16", netdef=engine(2.0)))
    record.put("races", race("vgg16", threads=1, netdef=engine(3.0)))
    found = [
        (row["net"], row["threads"], row["engines"]["netdef"]["median"])
        for row in record.values["races"]
    ]
    assert found == [("vgg16", 2, 2.0), ("lenet", 2, 1.0), ("vgg16", 1, 3.0)]
    assert record.values["date"]


def test_records_are_kept_in_files(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    record = Record(MACHINE)
    record.put("races", race("lenet", netdef=engine(1.0)))
    record.write(path)
    again = Record.read(path)
    assert again.values == record.values
    assert [file.name for file in tmp_path.iterdir()] == ["record.json"]
    again.grow({**MACHINE, "versions": {"netdef": "0.2.0"}})
    assert again.values["machine"]["versions"] == {"netdef": "0.2.0"}


def test_a_record_of_another_machine_does_not_grow() -> None:
    with pytest.raises(RecordError, match="cores was 2, and is 4"):
        Record(MACHINE).grow({**MACHINE, "cores": 4})


def test_a_record_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="cannot read"):
        Record.read(tmp_path / "none.json")
    (tmp_path / "broken.json").write_text("{", "utf-8")
    with pytest.raises(RecordError, match="cannot read"):
        Record.read(tmp_path / "broken.json")


def test_training() -> None:
    record = Record(MACHINE)
    record.values["peak"] = {"2": 10e9}
    mib = 2**20
    record.put("races", race("vgg16", netdef=engine(2.0, 500 * mib), torch=engine(3.0, 600 * mib)))
    record.put(
        "races",
        race(
            "lenet",
            netdef=engine(0.004, 70 * mib),
            torch=engine(0.006, 150 * mib),
            torch_nhwc=engine(0.005, 140 * mib),
            torch_fused=engine(0.003, 130 * mib),
        ),
    )
    record.values["races"][1]["caffe"] = 0.012
    (table,) = report.tables(record)
    assert table.title == "Training step, 2 threads"
    lenet, vgg = cells(table)
    assert lenet == {
        "net": "LeNet",
        "batch": "8",
        "netdef": "4",
        "PyTorch NCHW": "6",
        "PyTorch NHWC": "5",
        "PyTorch NHWC, fused SGD": "3",
        "Caffe": "12",
        "PyTorch / netdef": "1.25",
        "with fused SGD": "0.75",
        "Caffe / netdef": "3.00",
        # 10^9 operations in 4 ms are 250 GFLOP/s.
        "of FMA peak": "2500 %",
        "memory": "70 MiB",
        "of PyTorch": "130 MiB",
    }
    assert vgg["PyTorch / netdef"] == "1.50"
    assert vgg["PyTorch NHWC"] == vgg["Caffe"] == vgg["Caffe / netdef"] == "-"
    assert vgg["of FMA peak"] == "5 %"


def test_inference() -> None:
    record = Record(MACHINE)
    record.put(
        "races",
        race("lenet", "infer", netdef=engine(0.4), torch=engine(0.6), onnxruntime=engine(0.3)),
    )
    record.put("races", race("lenet", "infer1", threads=1, netdef=engine(0.00012345)))
    batch, one = report.tables(record)
    assert cells(batch)[0]["ONNX Runtime / netdef"] == "0.75"
    assert "memory" not in batch.heading
    assert one.title == "Inference of one image, 1 thread"
    assert one.rows == [["LeNet", "8", "0.123", "-"]]


def test_starts_and_scaling() -> None:
    record = Record(MACHINE)
    record.put("starts", {"net": "lenet", "threads": 2, "cold": 25.04, "warm": 0.9, "torch": None})
    record.put(
        "scaling", {"batch": 8, "threads": 2, "median": 0.25, "reference": 1.6, "others": 0.0}
    )
    record.put(
        "scaling", {"batch": 64, "threads": 1, "median": 3.2, "reference": 1.6, "others": 0.0}
    )
    start, scaling = report.tables(record)
    assert start.rows == [["LeNet", "64", "25.0", "0.9", "-"]]
    assert [(row["batch"], row["threads"], row["time for an image"]) for row in cells(scaling)] == [
        ("8", "2", "1.25"),
        ("64", "1", "2.00"),
    ]
    assert cells(scaling)[0]["images/s"] == "32"


def test_rows_that_others_disturbed_are_marked() -> None:
    record = Record(MACHINE)
    record.put("races", {**race("lenet", netdef=engine(1.0)), "others": 0.2})
    record.put("races", race("vgg16", netdef=engine(1.0)))
    record.put(
        "scaling", {"batch": 8, "threads": 2, "median": 1.0, "reference": 1.0, "others": 0.5}
    )
    races, scaling = report.tables(record)
    assert [row[0] for row in races.rows] == ["LeNet (*)", "VGG-16"]
    assert [row[0] for row in scaling.rows] == ["8 (*)"]
    assert races.note.endswith("(*): other processes used the machine, too.")


def test_forms() -> None:
    table = report.Table("Title", "Note.", ["net", "ms"], [["LeNet", "4"], ["VGG-16", "1000"]])
    assert report.text(table) == "Title. Note.\nnet       ms\nLeNet      4\nVGG-16  1000\n"
    assert report.markdown(table) == (
        "### Title\n\nNote.\n\n| net | ms |\n| --- | ---: |\n| LeNet | 4 |\n| VGG-16 | 1000 |\n"
    )


def test_tables_in_a_document(tmp_path: Path) -> None:
    document = tmp_path / "performance.md"
    document.write_text(f"# Before\n\n{report.BEGIN}\nold\n{report.END}\n\nafter\n", "utf-8")
    record = Record(MACHINE)
    record.values["peak"] = {"1": 114e9, "2": 228e9}
    record.put("races", race("lenet", netdef=engine(0.004)))
    for _ in range(2):
        report.write_into(document, record)
    text = document.read_text("utf-8")
    assert text.startswith(f"# Before\n\n{report.BEGIN}\n\nExample 1, 2 cores (avx2); 8.0 GiB, ")
    assert "114 GFLOP/s on 1 thread, 228 GFLOP/s on 2 threads" in text
    assert "| LeNet | 8 | 4 | - | 110 % |" in text
    assert text.endswith(f"\n{report.END}\n\nafter\n")
    assert "old" not in text


def test_a_document_without_marks(tmp_path: Path) -> None:
    document = tmp_path / "performance.md"
    document.write_text("# Nothing\n", "utf-8")
    with pytest.raises(report.ReportError, match="has no lines"):
        report.write_into(document, Record(MACHINE))
    assert document.read_text("utf-8") == "# Nothing\n"


def test_a_record_is_json(tmp_path: Path) -> None:
    Record(MACHINE).write(tmp_path / "record.json")
    assert json.loads((tmp_path / "record.json").read_text("utf-8"))["machine"] == MACHINE
