"""In the place of the local trainer: each job reports a loss that falls with its learning rate, and trains nothing."""

import math
import sys

from cloudtune_trainer.folder import RunFolder, append_line, now, read_json, write_json

run = RunFolder(sys.argv[-1])
if run.spec.is_file():  # otherwise it is asked what is installed: nothing is missing
    started = now()
    loss = -math.log10(read_json(run.spec)["hyperparameters"]["learning_rate"])
    append_line(
        run.metrics, {"time": started, "step": 5, "epoch": 1.0, "split": "validation", "values": {"loss": loss}}
    )
    ended = {"state": "succeeded", "step": 5, "started_at": started, "finished_at": now(), "updated_at": now()}
    write_json(run.status, {**read_json(run.status), **ended})
