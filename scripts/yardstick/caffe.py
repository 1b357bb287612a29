"""BVLC Caffe, where there is one: its own ``caffe time`` on the same nets.

``caffe time`` runs forward and backward passes but no update, which flatters it. It does not take
turns with the others: it runs right behind them.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from pathlib import Path

from yardstick.engines import Job

AVERAGE = re.compile(r"\] Average (Forward|Forward-Backward)(?: pass)?: (\S+) ms\.")

#: Where the libraries that Caffe may be linked with look for the number of threads.
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class CaffeError(Exception):
    """Caffe could not be run, or did not say what it should."""


def caffe_seconds(caffe: str, job: Job, iterations: int) -> float:
    """The mean seconds of a step of ``job``: both passes when training, else the forward pass.

    Raises CaffeError.
    """
    phase = "TRAIN" if job.training else "TEST"
    threads = dict.fromkeys(THREADS, str(job.threads))
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "net.prototxt"
        model.write_text(job.text, "utf-8")
        try:
            done = subprocess.run(
                [
                    caffe,
                    "time",
                    f"-model={model}",
                    f"-iterations={iterations}",
                    f"-phase={phase}",
                    "-logtostderr",
                ],
                capture_output=True,
                text=True,
                env={**os.environ, **threads},
                check=False,
            )
        except OSError as error:
            raise CaffeError(f"cannot run {caffe}: {error.strerror}") from error
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [""])[-1]
        raise CaffeError(f"{caffe} ended with status {done.returncode}: {last}")
    times = averages(done.stderr)
    wanted = "Forward-Backward" if job.training else "Forward"
    if wanted not in times:
        raise CaffeError(f'{caffe} did not say "Average {wanted}"')
    return times[wanted]


def averages(log: str) -> dict[str, float]:
    """The mean seconds of "Forward" and "Forward-Backward" in the log of ``caffe time``."""
    return {what: float(milliseconds) / 1e3 for what, milliseconds in AVERAGE.findall(log)}
