"""Wall time of ``import cloudtune`` and of ``cloudtune --help`` over that of importing pydantic alone.

One run, repeats interleaved, so that whatever else the machine does falls on all alike. Prints each median with its
middle half, and the ratios with a 95 % bootstrap interval.

    python benchmarks/import_time.py [--repeats 40] [--json]
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path

PROGRAMS = {
    "bare python": [sys.executable, "-c", ""],
    "import pydantic": [sys.executable, "-c", "import pydantic"],
    "pydantic.BaseModel": [sys.executable, "-c", "from pydantic import BaseModel"],  # pydantic is lazy too
    "import cloudtune": [sys.executable, "-c", "import cloudtune"],
    "cloudtune --help": [str(Path(sys.executable).with_name("cloudtune")), "--help"],
}
BASE = "import pydantic"
AIMS = {"import cloudtune": 1.5, "cloudtune --help": 3.0}
WARM_UPS = 3


def seconds(command: list[str]) -> float:
    begun = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begun


def measure(repeats: int) -> dict[str, list[float]]:
    taken: dict[str, list[float]] = {name: [] for name in PROGRAMS}
    for number in range(repeats + WARM_UPS):
        for name in random.sample(list(PROGRAMS), len(PROGRAMS)):
            value = seconds(PROGRAMS[name])
            if number >= WARM_UPS:
                taken[name].append(value)
    return taken


def interval(above: list[float], below: list[float], draws: int = 2000) -> tuple[float, float]:
    """Of the ratio of medians: rounds are drawn whole, since their members were measured side by side."""
    rounds = list(zip(above, below, strict=True))
    ratios = []
    for _ in range(draws):
        drawn = random.choices(rounds, k=len(rounds))
        ratios.append(statistics.median(a for a, _ in drawn) / statistics.median(b for _, b in drawn))
    ratios.sort()
    return ratios[int(draws * 0.025)], ratios[int(draws * 0.975)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=40)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    taken = measure(arguments.repeats)
    base = statistics.median(taken[BASE])
    report: dict[str, dict[str, float]] = {}
    for name, values in taken.items():
        quarters = statistics.quantiles(values, n=4)
        report[name] = {"median_ms": quarters[1] * 1e3, "q1_ms": quarters[0] * 1e3, "q3_ms": quarters[2] * 1e3}
        if name in AIMS:
            low, high = interval(values, taken[BASE])
            report[name] |= {"ratio": quarters[1] / base, "low": low, "high": high, "aim": AIMS[name]}
    if arguments.json:
        print(json.dumps({"repeats": arguments.repeats, "programs": report}, indent=2))
    else:
        for name, row in report.items():
            line = f"{name:18} {row['median_ms']:7.1f} ms  (middle half {row['q1_ms']:.1f} to {row['q3_ms']:.1f})"
            if "ratio" in row:
                line += f"  {row['ratio']:.2f} x [{row['low']:.2f}, {row['high']:.2f}], aim {row['aim']:.1f}"
            print(line)


if __name__ == "__main__":
    main()
