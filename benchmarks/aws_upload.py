"""What an upload to S3 takes: ``python benchmarks/aws_upload.py [--megabytes 1024] [--aws PATH] [--requests]``.

The same file goes to the same emulator by ``aws s3 cp`` (where there is an AWS CLI; else by boto3's managed transfer,
which it is made of) and by cloudtune's uploader, in turns, each a process of its own: seconds of the whole process, its
CPU time and the server's meanwhile (which say something on a busy machine too), and its peak memory. Then requests a
second of both APIs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

import boto3
import psutil
from botocore.client import Config
from emulator import peak, rate

if TYPE_CHECKING:
    from collections.abc import Iterator

MANAGED = """
import boto3, sys
boto3.client("s3").upload_file(sys.argv[1], sys.argv[2], sys.argv[3])
"""
OURS = """
import sys
from pathlib import Path
from cloudtune_providers.aws.clients import Clients
from cloudtune_providers.aws.options import AwsOptions
from cloudtune_providers.aws.s3 import Objects

class Notes:
    notes = {}
    def note(self, key, value):
        self.notes[key] = value

Objects(Clients(AwsOptions()), sys.argv[2]).put(sys.argv[3], Path(sys.argv[1]), sys.argv[4], Notes())
"""


@contextmanager
def served() -> Iterator[tuple[dict[str, str], psutil.Process]]:
    command = [sys.executable, "-c", "from cloudtune.cli.main import main; main()", "emulate", "--port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        assert server.stdout is not None
        text = ""
        while not text.rstrip().endswith("\n}"):
            text += server.stdout.readline()
        try:
            yield json.loads(text)["environment"], psutil.Process(server.pid)
        finally:
            server.terminate()


def keys(given: dict[str, str]) -> dict[str, str]:
    """The printed credentials, as boto3 takes them."""
    return {name.lower(): given[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}


class Taken(NamedTuple):
    """What one upload took."""

    wall_s: float
    cpu_s: float
    server_cpu_s: float
    peak_mb: float


def cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def timed(command: list[str], environment: dict[str, str], server: psutil.Process) -> Taken:
    begun, before = time.perf_counter(), cpu_s(server)
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as process:
        with peak(psutil.Process(process.pid)) as most:
            _, status, used = os.wait4(process.pid, 0)
        took = time.perf_counter() - begun
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, command
    return Taken(took, used.ru_utime + used.ru_stime, cpu_s(server) - before, most())


def uploads(megabytes: int, aws: str | None, rounds: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "large.bin"
        digest = hashlib.sha256()
        with path.open("wb") as file:
            for _ in range(megabytes):
                block = os.urandom(1 << 20)
                digest.update(block)
                file.write(block)
        with served() as (given, server):
            environment = {**os.environ, **given}
            bucket, sha256 = given["EMULATED_BUCKET"], digest.hexdigest()
            s3 = boto3.client("s3", endpoint_url=given["AWS_ENDPOINT_URL"], region_name="us-east-1", **keys(given))
            peer = "aws s3 cp" if aws else "boto3's managed transfer"
            python = [sys.executable, "-W", "ignore", "-c"]
            commands: dict[str, Any] = {
                peer: [aws, "s3", "cp", "--quiet", str(path), f"s3://{bucket}/k"] if aws
                else [*python, MANAGED, str(path), bucket, "k"],
                "cloudtune": [*python, OURS, str(path), bucket, "k", sha256],
            }  # fmt: skip
            found: dict[str, list[Taken]] = {name: [] for name in commands}
            print(f"upload of {megabytes} MB, {rounds} rounds in turns")
            with peak(server) as most:
                for _ in range(rounds):
                    for name, command in commands.items():
                        found[name].append(timed(command, environment, server))
                        s3.delete_object(Bucket=bucket, Key="k")
            tell(found, peer)
            print(f"  server peak {most():.0f} MB")


def tell(found: dict[str, list[Taken]], peer: str) -> None:
    for name, taken in found.items():
        seconds = ", ".join(f"{one.wall_s:.1f}" for one in taken)
        cpu = ", ".join(f"{one.cpu_s:.1f} + {one.server_cpu_s:.1f}" for one in taken)
        print(f"  {name}: {seconds} s; CPU with the server's {cpu} s; peak {max(one.peak_mb for one in taken):.0f} MB")
    own, theirs = found["cloudtune"], found[peer]
    ratio = median(one.wall_s for one in own) / median(one.wall_s for one in theirs)
    best = min(one.wall_s for one in own) / min(one.wall_s for one in theirs)
    cpu_ratio = median(map(_both, own)) / median(map(_both, theirs))
    print(f"  cloudtune over {peer}: {ratio:.2f} (medians), {best:.2f} (best); CPU of both sides {cpu_ratio:.2f}")


def _both(one: Taken) -> float:
    return one.cpu_s + one.server_cpu_s


def requests() -> None:
    with served() as (given, server):
        config = Config(retries={"total_max_attempts": 1}, max_pool_connections=8)
        session = boto3.session.Session(region_name="us-east-1", **keys(given))
        s3, bedrock = (session.client(name, endpoint_url=given["AWS_ENDPOINT_URL"], config=config)
                       for name in ("s3", "bedrock"))  # fmt: skip
        bucket = given["EMULATED_BUCKET"]
        row = {"schemaVersion": "v", "messages": [{"role": "user", "content": [{"text": "q"}]},
                                                  {"role": "assistant", "content": [{"text": "a"}]}]}  # fmt: skip
        s3.put_object(Bucket=bucket, Key="rows.jsonl", Body="\n".join([json.dumps(row)] * 10).encode())
        begun = time.perf_counter()
        for number in range(1000):
            bedrock.create_model_customization_job(
                jobName=f"j{number}", customModelName=f"m{number}", roleArn=given["EMULATED_ROLE"],
                baseModelIdentifier="amazon.nova-lite-v1:0:300k", hyperParameters={},
                trainingDataConfig={"s3Uri": f"s3://{bucket}/rows.jsonl"},
                outputDataConfig={"s3Uri": f"s3://{bucket}/out"},
            )  # fmt: skip
        print(f"Bedrock jobs created by boto3: {1000 / (time.perf_counter() - begun):.0f} a second")
        name = "j500"
        print(
            f"GET a job of 1000: {rate(lambda: bedrock.get_model_customization_job(jobIdentifier=name)):.0f} a second"
        )
        begun = time.perf_counter()
        listed = bedrock.list_model_customization_jobs(maxResults=1000)["modelCustomizationJobSummaries"]
        print(f"{len(listed)} jobs in one list: {time.perf_counter() - begun:.2f} s")
        print(f"PUT a small object: {rate(lambda: s3.put_object(Bucket=bucket, Key='k', Body=b'x')):.0f} a second; "
              f"server memory {server.memory_info().rss / 1e6:.0f} MB")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--aws", default=shutil.which("aws"), help="the AWS CLI; boto3's managed transfer without one")
    parser.add_argument("--requests", action="store_true", help="only the requests a second")
    given = parser.parse_args()
    if not given.requests:
        uploads(given.megabytes, given.aws, given.rounds)
    requests()


if __name__ == "__main__":
    main()
