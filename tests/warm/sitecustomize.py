"""Hands a trainer that a test starts over to the warm server (``server.py``): there torch is imported already.

The same holds for the workers of pytest-xdist.

Python imports this module at its start, from PYTHONPATH. The process stays as a stand-in: it passes signals on, its
end ends the child that runs the program, and it ends as the child does.
"""

import sys

PROGRAMS = ("cloudtune_trainer", "cloudtune_trainer.sagemaker")
"""Run with ``python [-P] -m``: these packages' modules import torch.

With PYTHON_WARM_ALL set, scripts and the command line run warm, too. What they start does not inherit that.
"""
COLD = ("cloudtune_trainer.worker",)
"""Packages beside these that import the standard library only."""
WORKER = "import sys;exec(eval(sys.stdin.readline()))"
"""execnet starts a worker of pytest-xdist with ``python -u -c`` and this."""
SETTINGS = ("OMP_", "MKL_", "CUDA_", "HF_", "TRANSFORMERS_", "HUGGINGFACE_")
"""Libraries read variables of these names when they are imported, so they have to be those of the server."""
SET_BY_THE_TRAINER = ("OMP_WAIT_POLICY", "HF_HUB_DISABLE_PROGRESS_BARS")
LIBRARIES = ("torch", "transformers", "peft", "accelerate", "safetensors", "tokenizers", "numpy")


def _program() -> tuple[str, str] | None:
    """A module, the file of a script or a worker's code that is to be run warm; and which of these it is."""
    import os

    words = sys.orig_argv[1:]
    if words == ["-u", "-c", WORKER]:
        return WORKER, "code"
    if words and words[0] == "-P":
        del words[0]
    if not words:
        return None
    everything = bool(os.environ.get("PYTHON_WARM_ALL"))
    if words[0] == "-m" and len(words) > 1:
        programs = (*PROGRAMS, "cloudtune") if everything else PROGRAMS
        is_warm = words[1] not in COLD and (words[1] in programs or words[1].rpartition(".")[0] in PROGRAMS)
        return (words[1], "module") if is_warm else None
    return (words[0], "script") if everything and not words[0].startswith("-") else None


def facts() -> dict[str, object]:
    """What has to be the same here and in the server."""
    import importlib.util
    import os
    import resource

    found = {name: importlib.util.find_spec(name) for name in LIBRARIES}
    limits = [name for name in dir(resource) if name.startswith("RLIMIT_") and name != "RLIMIT_FSIZE"]
    return {
        "python": sys.executable,
        "libraries": {name: spec and spec.origin for name, spec in found.items()},
        "settings": {
            name: value
            for name, value in os.environ.items()
            if name.startswith(SETTINGS) and name not in SET_BY_THE_TRAINER
        },
        "limits": {name: resource.getrlimit(getattr(resource, name))[0] for name in limits},
    }


def _hand_over(program: str, kind: str) -> None:
    import array
    import fcntl
    import json
    import os
    import resource
    import signal
    import socket
    from pathlib import Path

    open_ones = []
    for number in map(int, os.listdir("/proc/self/fd")):
        try:
            fcntl.fcntl(number, fcntl.F_GETFD)
        except OSError:
            continue  # the one that lists them
        open_ones.append(number)
    server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        server.connect(os.environ["PYTHON_WARM_SERVER"])
    except OSError:
        return
    handled = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
    os.umask(mask := os.umask(0o077))
    environment = {name: value for name, value in os.environ.items() if name != "PYTHON_WARM_ALL"}
    order = {
        "facts": facts(), "program": program, "kind": kind, "argv": sys.argv[1:], "path": sys.path,
        "safe": sys.flags.safe_path, "cwd": str(Path.cwd()), "env": environment, "umask": mask, "fds": open_ones,
        "file_size": resource.getrlimit(resource.RLIMIT_FSIZE),
        "ignored": [number for number in handled if signal.getsignal(number) is signal.SIG_IGN],
    }  # fmt: skip
    for number in handled:
        if number not in order["ignored"]:
            signal.signal(number, lambda number, _: server.send(str(int(number)).encode()))
    body = json.dumps(order).encode()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, len(body) + 65536)
    server.sendmsg([body], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", open_ones))])
    answer = server.recv(64)
    if answer == b"cold":
        for number in handled:
            if number not in order["ignored"]:
                signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        server.close()
        return
    code = int(answer or b"1")
    if code < 0:
        signal.signal(-code, signal.SIG_DFL) if -code != signal.SIGKILL else None
        os.kill(os.getpid(), -code)
    os._exit(code)


def _start() -> None:
    import os

    if os.environ.get("PYTHON_WARM_SERVER") and (found := _program()) is not None:
        _hand_over(*found)


_start()
