"""The real trainer, which waits after step HELD_AT for as long as it lives, unless it continues another run.

A test that kills it before that step cannot come too late.
"""

import os
import sys
import time

from cloudtune_trainer.__main__ import main
from cloudtune_trainer.folder import RunFolder, read_json
from cloudtune_trainer.reporting import Report

RUN = sys.argv[-1]
HELD_AT = int(os.environ["HELD_AT"])
_metrics = Report.metrics


def metrics(self: Report, step: int, epoch: float, split: str, values: dict[str, float]) -> None:
    _metrics(self, step, epoch, split, values)
    while step >= HELD_AT:
        time.sleep(1)


if not read_json(RunFolder(RUN).spec).get("resume_from"):
    Report.metrics = metrics  # type: ignore[method-assign]
sys.exit(main([RUN]))
