"""A trainer without a model: it writes the run folder's files and follows the job's tag ``script``.

Tests of the queue, of cancelling and of deaths use it because it starts in no time. Its words, one after another:
``steps N SECONDS``, ``deaf`` (from here on look at no request), ``ignore-term``, ``say TEXT``, ``signal NUMBER``,
``exit CODE``, ``show`` (its devices, into the log), ``eat MEGABYTES``, ``fill FILE`` (write to that file until the disk
refuses), ``fork`` (leave a child), ``note`` (of another process's failure).
"""

import contextlib
import os
import signal
import sys
import time
from pathlib import Path

from cloudtune_trainer.folder import RunFolder, append_line, now, read_json, write_json

NOTE = {"code": "out_of_memory", "message": "rank 1 ran out of memory", "hint": "use less"}
INTERRUPTED = {"code": "killed", "message": "received SIGTERM", "hint": "resume it", "interrupted": True}
SHOWN = ("CUDA_VISIBLE_DEVICES", "RANK", "WORLD_SIZE")


class Trainer:
    def __init__(self, run: RunFolder) -> None:
        self.run = run
        self.status = {**(read_json(run.status) or {}), "step": 0}
        self.deaf = False
        self.told = False
        signal.signal(signal.SIGTERM, self._term)

    def _term(self, number: int, frame: object) -> None:
        self.told = True

    def state(self, state: str, detail: str = "", **fields: object) -> None:
        self.status |= {"state": state, "detail": detail, "updated_at": now(), **fields}
        append_line(self.run.events, {"time": now(), "type": "state", "level": "info", "message": state, "data": {}})
        write_json(self.run.status, self.status, durable=False)

    def carry_out(self, words: list[str]) -> str:
        acts = {
            "deaf": lambda: setattr(self, "deaf", True),
            "ignore-term": lambda: signal.signal(signal.SIGTERM, signal.SIG_IGN),
            "say": lambda: print(words.pop(0).replace("_", " "), flush=True),
            "signal": lambda: (os.kill(os.getpid(), int(words.pop(0))), time.sleep(5)),
            "exit": lambda: os._exit(int(words.pop(0))),
            "eat": lambda: setattr(self, "eaten", bytearray(os.urandom(1 << 20)) * int(words.pop(0))),
            "fill": lambda: fill(Path(words.pop(0))),
            "show": lambda: print(" ".join(f"{name}={os.environ.get(name)}" for name in SHOWN), flush=True),
            "note": lambda: write_json(self.run.path / ".problem-1.json", NOTE),
            "fork": lambda: leave_a_child(self.run.path / "child.pid"),
        }
        while words:
            word = words.pop(0)
            if word == "steps":
                if not self.steps(int(words.pop(0)), float(words.pop(0))):
                    return "cancelled"
            else:
                acts[word]()
        return "succeeded"

    def steps(self, total: int, pause: float) -> bool:
        self.state("training", total_steps=total)
        for step in range(1, total + 1):
            while self.run.requested("pause") and not self.deaf and not self.told and not self.run.requested("cancel"):
                if self.status["state"] != "paused":
                    self.state("paused", f"at step {step}")
                time.sleep(0.02)
            if self.run.requested("cancel") and not self.deaf:
                return False
            if self.told and not self.deaf:
                self.state("failed", finished_at=now(), problem=INTERRUPTED)
                os._exit(143)
            if self.status["state"] == "paused":
                self.state("training")
            time.sleep(pause)
            line = {"time": now(), "step": step, "epoch": step / total, "split": "train", "values": {"loss": 1 / step}}
            append_line(self.run.metrics, line)
            self.status |= {"step": step, "updated_at": now()}
            write_json(self.run.status, self.status, durable=False)
        return True


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file, contextlib.suppress(BlockingIOError):
        while True:
            file.write(os.urandom(1 << 12))


def leave_a_child(pid_file: Path) -> None:
    if os.fork() == 0:
        pid_file.write_text(str(os.getpid()))
        time.sleep(600)
        os._exit(0)
    while not pid_file.exists() or not pid_file.read_text():
        time.sleep(0.01)


def main() -> None:
    path = Path(sys.argv[-1])
    if not (path / "spec.json").is_file():
        return  # asked what is installed: nothing is missing
    run = RunFolder(path)
    script = read_json(path / "job.json")["tags"].get("script", "steps 3 0.01")
    trainer = Trainer(run)
    outcome = trainer.carry_out(script.split())
    trainer.state(outcome, finished_at=now())


main()
