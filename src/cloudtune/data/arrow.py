"""Parquet, Arrow and Feather files, and folders that the datasets library saved: batches of rows as dictionaries."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from cloudtune.data.tables import BATCH_ROWS, Table

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cloudtune.data.faults import Faults


def arrow_tables(path: Path, kind: str, faults: Faults, name: str) -> Iterator[Table]:
    """Rows of a file of that kind: ``parquet`` or ``arrow``. ``name`` is what the file is called."""
    try:
        from pyarrow import ArrowException
    except ImportError:
        faults.error("not_installed", f"reading {kind} needs pyarrow", file=name,
                     fix='pip install "cloudtune[data]"')  # fmt: skip
        return
    number = 1
    try:
        for batch in _parquet(path) if kind == "parquet" else _arrow(path):
            for start in range(0, batch.num_rows, BATCH_ROWS):
                rows = batch.slice(start, BATCH_ROWS).to_pylist()
                yield Table(list(range(number, number + len(rows))), rows, by_row=True)
                number += len(rows)
    except (ArrowException, UnicodeDecodeError) as error:
        faults.error(f"broken_{kind}", f"this is not a good {kind} file: {error}", file=name, fix="make it again")


def _parquet(path: Path) -> Iterator[Any]:
    from pyarrow.parquet import ParquetFile

    with ParquetFile(path) as opened:
        yield from opened.iter_batches(BATCH_ROWS)


def _arrow(path: Path) -> Iterator[Any]:
    """Arrow comes as a file with an index (Feather), or as a stream (what the datasets library writes)."""
    from pyarrow import ArrowInvalid, ipc, memory_map

    with memory_map(str(path)) as mapped:
        try:
            file = ipc.open_file(mapped)
        except ArrowInvalid:
            mapped.seek(0)
            with ipc.open_stream(mapped) as stream:
                yield from stream
        else:
            for i in range(file.num_record_batches):
                yield file.get_batch(i)


def dataset_files(folder: Path, faults: Faults) -> list[Path] | None:
    """The Arrow files of a folder that ``Dataset.save_to_disk`` wrote; None if it is no such folder."""
    if (folder / "dataset_dict.json").is_file():
        splits = json.loads((folder / "dataset_dict.json").read_bytes())["splits"]
        faults.error(
            "is_directory", f"this folder holds the splits {', '.join(splits)}", file=str(folder),
            fix=f"name one: {folder / splits[0]}",
        )  # fmt: skip
        return []
    state = folder / "state.json"
    if not state.is_file():
        return None
    names = [entry["filename"] for entry in json.loads(state.read_bytes()).get("_data_files", ())]
    return [folder / name for name in names]
