"""A trainer that does nothing until it is ordered to: the contract suite brings jobs to any state with it.

It is run by the real worker and keeps the run folder's contract; orders come as lines of a file beside the runs. What
it leaves behind, checkpoint and model, it copies from a run that was really trained.
"""

import shutil
import signal
import sys
import time
from pathlib import Path

from cloudtune_trainer.folder import RunFolder, append_line, now, read_json, write_json

STEP = 3


class Trainer:
    def __init__(self, run: RunFolder, stage: Path, trained: Path) -> None:
        self.run, self.trained = run, trained
        self.orders = stage / run.path.name
        self.carried_out = stage / f"{run.path.name}.done"
        self.status = {**(read_json(run.status) or {}), "step": 0, "problem": None}
        self.told = False
        signal.signal(signal.SIGTERM, lambda *_: setattr(self, "told", True))

    def tell(self, state: str, **fields: object) -> None:
        append_line(self.run.events, {"time": now(), "type": "state", "level": "info", "message": state, "data": {}})
        self.status |= {"state": state, "detail": "", "updated_at": now(), **fields}
        write_json(self.run.status, self.status)

    def end(self, state: str, **fields: object) -> None:
        self.tell(state, finished_at=now(), **fields)

    def act(self) -> None:
        done = 0
        self.done(0)
        while True:
            if self.run.requested("cancel"):
                self.end("cancelled")
                return
            if self.told:
                problem = {"code": "killed", "message": "received SIGTERM", "hint": None, "interrupted": True}
                self.end("failed", problem=problem)
                return
            self.heed_pause()
            orders = self.orders.read_text().splitlines() if self.orders.exists() else []
            for order in orders[done:]:
                done += 1
                ended = self.carry_out(*order.split(" ", 1))
                self.done(done)
                if ended:
                    return
            time.sleep(0.01)

    def done(self, count: int) -> None:
        self.carried_out.write_text(str(count))

    def heed_pause(self) -> None:
        if self.run.requested("pause") and self.status["state"] == "training":
            self.tell("paused")
        elif self.status["state"] == "paused" and not self.run.requested("pause"):
            self.tell("training")

    def carry_out(self, order: str, words: str = "") -> bool:
        if order == "prepare":
            self.tell("loading")
        elif order == "run":
            self.train()
        elif order == "succeed":
            shutil.copytree(self.trained / "model", self.run.model)
            self.end("succeeded")
        elif order == "expire":
            self.end("expired", problem={"code": "stopped_by_limit", "message": words or "time is up", "hint": None})
        elif order == "fail":
            self.end("failed", problem={"code": "error", "message": words, "hint": None})
        return order in ("succeed", "expire", "fail")

    def train(self) -> None:
        for step in range(1, STEP + 1):
            line = {"time": now(), "step": step, "epoch": step / 10, "split": "train", "values": {"loss": 1 / step}}
            append_line(self.run.metrics, line)
        shutil.copytree(self.trained / "checkpoints", self.run.checkpoints, dirs_exist_ok=True)
        self.tell("training", step=STEP, total_steps=10, epoch=STEP / 10)


if (Path(sys.argv[-1]) / "spec.json").is_file():
    Trainer(RunFolder(sys.argv[-1]), Path(sys.argv[1]), Path(sys.argv[2])).act()
