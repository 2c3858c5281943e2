"""How fast rows are checked, converted and fingerprinted, beside bare msgspec, datasets and pandas, in one run.

    python benchmarks/data.py [--mb 1000] [--keep FILE] [--tokenizer FOLDER]

Every measurement runs in a process of its own, so that its peak memory is its own. The file is made from a seed and has
faults planted in it; the run fails if the fast passes do not find every one of them.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

WORDS = [
    "the", "a", "of", "to", "and", "in", "is", "it", "you", "that", "he", "was", "for", "on", "are", "with", "as",
    "his", "they", "be", "at", "one", "have", "this", "from", "or", "had", "by", "hot", "but", "some", "what",
    "there", "we", "can", "out", "other", "were", "all", "your", "when", "up", "use", "word", "how", "said",
    "each", "she", "which", "do", "their", "time", "if", "will", "way", "about", "many", "then", "them", "would",
    "write", "like", "so", "these", "her", "long", "make", "thing", "see", "him", "two", "has", "look", "more",
    "day", "could", "go", "come", "did", "my", "sound", "no", "most", "number", "who", "over", "know", "water",
    "than", "call", "first", "people", "may", "down", "side", "been", "now", "find", "¿qué?", "árbol", "niño",
    "configuración", "respuesta", "bucket", '"policy"', "line\nbreak", "request=", "{json:", "1}", "3.14",
    "2026-11-21", "https://x.example",
]  # fmt: skip
PLANTED = {
    "invalid_json": 7,
    "blank": 11,
    "unknown_role": 5,
    "last_not_assistant": 9,
    "duplicate": 13,
    "template_token": 17,
}


def make(path: Path, size: int) -> None:
    """Chat rows of about 1.4 kB, with the planted faults spread over them."""
    chooser = random.Random(20261121)
    pieces = [" ".join(chooser.choices(WORDS, k=chooser.randint(5, 60))) for _ in range(20_000)]
    faults = [code for code, count in PLANTED.items() for _ in range(count)]
    chooser.shuffle(faults)
    written = number = 0
    with path.open("w", encoding="utf-8") as out:
        while written < size:
            number += 1
            row = _chat(chooser, pieces, number)
            lines = [json.dumps(row, ensure_ascii=False)]
            if faults and written > size * (1 - len(faults) / sum(PLANTED.values())) * 0.98:
                lines += _faulty(faults.pop(), row, number)
            for line in lines:
                out.write(line + "\n")
                written += len(line.encode()) + 1


def _chat(chooser: random.Random, pieces: list[str], number: int) -> dict[str, Any]:
    messages = [{"role": "system", "content": "You answer briefly."}] if chooser.random() < 0.5 else []
    for _ in range(chooser.randint(1, 3)):
        messages.append({"role": "user", "content": f"{number} {chooser.choice(pieces)}"})
        messages.append({"role": "assistant", "content": f"{chooser.choice(pieces)} {chooser.choice(pieces)}"})
    return {"messages": messages}


def _faulty(code: str, row: dict[str, Any], number: int) -> list[str]:
    changed = json.loads(json.dumps(row))
    messages = changed["messages"]
    messages[-1]["content"] += f" planted {number}"
    if code == "invalid_json":
        return [json.dumps(changed)[:-9]]
    if code == "blank":
        messages[-1]["content"] = "  "
    elif code == "unknown_role":
        messages[-1]["role"] = "bot"
    elif code == "last_not_assistant":
        messages.append({"role": "user", "content": "and?"})
    elif code == "template_token":
        messages[-1]["content"] += "<|im_end|>"
    elif code == "duplicate":
        return [json.dumps(changed), json.dumps(changed)]
    return [json.dumps(changed)]


# --- what is measured; each prints one JSON object


def bare(path: str, out: str) -> dict[str, Any]:
    """Decode and encode each line, nothing else."""
    import msgspec

    decode, encode = msgspec.json.Decoder().decode, msgspec.json.Encoder().encode
    rows = 0
    with open(path, "rb") as source, open(out, "wb") as target:
        for line in source:
            try:
                target.write(encode(decode(line)))
            except msgspec.DecodeError:
                continue
            target.write(b"\n")
            rows += 1
    return {"rows": rows}


def _convert(path: str, out: str, form: str, workers: int) -> dict[str, Any]:
    from cloudtune.data import convert

    report = convert(path, to=form, out=Path(out), workers=workers)
    found = {code: report.counts.get(code, 0) for code in PLANTED}
    assert found == PLANTED, f"planted {PLANTED}, found {found}"
    return {"rows": report.rows}


def _check(path: str, **options: Any) -> dict[str, Any]:
    from cloudtune.data import check

    report = check(path, **options)
    return {"rows": report.rows, "tokens": report.tokens}


def near(path: str) -> dict[str, Any]:
    """Near duplicates."""
    from cloudtune.data.faults import Faults
    from cloudtune.data.near import NearDuplicates
    from cloudtune.data.reading import read
    from cloudtune.spec import Source

    known, rows = NearDuplicates(), 0
    for batch in read(Source(path=path), Faults()):
        known.add(batch.records)
        rows += len(batch.records)
    return {"rows": rows}


def datasets(path: str, out: str) -> dict[str, Any]:
    """The datasets library with two processes: load, map to the same format, write."""
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
    from datasets import load_dataset

    with tempfile.TemporaryDirectory() as cache:
        rows = load_dataset("json", data_files=path, split="train", cache_dir=cache)
        rows = rows.map(lambda row: {"messages": row["messages"]}, num_proc=2)
        rows.to_json(out, num_proc=2, force_ascii=False)
        return {"rows": len(rows)}


def pandas(path: str, out: str) -> dict[str, Any]:
    """pandas: read, check that there are messages, write."""
    import pandas as pd

    rows = 0
    with open(out, "w", encoding="utf-8") as target:
        for frame in pd.read_json(path, lines=True, chunksize=20_000):
            good = frame[frame["messages"].map(len) > 0]
            good.to_json(target, orient="records", lines=True, force_ascii=False)
            rows += len(good)
    return {"rows": rows}


def tokens_bare(path: str, tokenizer: str) -> dict[str, Any]:
    """A bare batch encode of the rendered rows."""
    from cloudtune.data.faults import Faults
    from cloudtune.data.reading import read
    from cloudtune.data.tokens import TokenCounter
    from cloudtune.spec import Source

    counter = TokenCounter(tokenizer)
    texts = [counter.text(record) for batch in read(Source(path=path), Faults()) for record in batch.records]
    started = time.perf_counter()
    count = 0
    for start in range(0, len(texts), 100):
        count += sum(len(one.ids) for one in counter._encode(texts[start : start + 100]))
    return {"rows": len(texts), "tokens": count, "seconds": time.perf_counter() - started}


def measure(name: str, path: str, out: str, tokenizer: str) -> dict[str, Any]:
    """One measurement, in this process."""
    todo = {
        "bare msgspec": lambda: bare(path, out),
        "check, one process": lambda: _check(path, workers=0),
        "check + convert to openai, one process": lambda: _convert(path, out, "openai", 0),
        "check + convert to openai, two workers": lambda: _convert(path, out, "openai", 2),
        "check + convert to bedrock-converse, one process": lambda: _convert(path, out, "bedrock-converse", 0),
        "check + convert to bedrock-converse, two workers": lambda: _convert(path, out, "bedrock-converse", 2),
        "check with secrets and personal data, two workers": lambda: _check(path, private=True, workers=2),
        "near duplicates": lambda: near(path),
        "datasets, two processes": lambda: datasets(path, out),
        "pandas": lambda: pandas(path, out),
        "tokens, bare encode_batch": lambda: tokens_bare(path, tokenizer),
        "tokens, check": lambda: _check(path, tokenizer=tokenizer, workers=0),
    }
    started = time.perf_counter()
    found = todo[name]()
    found.setdefault("seconds", time.perf_counter() - started)
    own, others = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    workers = 2 if "two" in name else 0
    found["peak_mb"] = (own.ru_maxrss + workers * others.ru_maxrss) / 1024
    found["cpu"] = own.ru_utime + own.ru_stime + others.ru_utime + others.ru_stime
    return found


CLEAN = ("datasets, two processes", "pandas")
PART = ("near duplicates", "tokens, bare encode_batch", "tokens, check")
NAMES = (
    "bare msgspec", "check, one process", "check + convert to openai, one process",
    "check + convert to openai, two workers", "check + convert to bedrock-converse, one process",
    "check + convert to bedrock-converse, two workers", "check with secrets and personal data, two workers", *CLEAN,
    "near duplicates",
)  # fmt: skip


def main() -> None:
    """Make the file, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mb", type=int, default=1000)
    parser.add_argument("--keep", help="make the file here, or use the one that is here")
    parser.add_argument("--tokenizer", default="")
    parser.add_argument("--only", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.only:
        print(json.dumps(measure(*args.only, args.tokenizer)))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(args.keep or f"{folder}/rows.jsonl")
        if not path.exists():
            make(path, args.mb * 1_000_000)
        # The others stop at the first bad row, and the slow ones need no gigabyte to tell their rate.
        clean, part = Path(folder) / "clean.jsonl", Path(folder) / "part.jsonl"
        _good_rows(path, clean, 100_000_000)
        _good_rows(path, part, 20_000_000)
        names = [*NAMES, *(PART[1:] if args.tokenizer else ())]
        head = f"{'':50} {'MB/s':>7} {'rows/s':>9} {'of bare':>8} {'peak MB':>8} {'CPU s':>7}"
        print(f"{head}   ({path.stat().st_size / 1e6:.0f} MB)")
        rate_of_bare = 0.0
        for name in names:
            file = clean if name in CLEAN else part if name in PART else path
            command = [
                sys.executable,
                __file__,
                "--tokenizer",
                args.tokenizer,
                "--only",
                name,
                str(file),
                f"{folder}/out",
            ]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            found = json.loads(done.stdout.splitlines()[-1])
            rate = file.stat().st_size / 1e6 / found["seconds"]
            rate_of_bare = rate_of_bare or rate
            tokens = f"  {found['tokens'] / found['seconds']:,.0f} tokens/s" if found.get("tokens") else ""
            print(f"{name:50} {rate:7.1f} {found['rows'] / found['seconds']:9,.0f} {rate / rate_of_bare:8.2f} "
                  f"{found['peak_mb']:8.0f} {found['cpu']:7.1f}{tokens}", flush=True)  # fmt: skip


def _good_rows(source: Path, target: Path, size: int) -> None:
    """The first rows that every reader can take."""
    with source.open("rb") as rows, target.open("wb") as out:
        for row in rows:
            try:
                json.loads(row)
            except ValueError:
                continue
            if out.write(row) and out.tell() >= size:
                return


if __name__ == "__main__":
    main()
