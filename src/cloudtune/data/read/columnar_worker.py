"""A process that reads Parquet, Arrow and Feather files: ``python -m cloudtune.data.read.columnar_worker``.

Requests (see ``ask``) come on standard input. For each of them, frames go to standard output (see ``send``). pyarrow
checks a file only after it has read parts of it, so a damaged file can end the process with a segmentation fault. Here
that ends this process alone.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections import Counter
from typing import IO, TYPE_CHECKING, Any

import msgspec

from cloudtune.data.read.blocks import MAX_ROW_BYTES, TOO_LONG_FIX
from cloudtune.data.read.size_limits import AS_JSONL, SHOWN_CHARS, expansion
from cloudtune.data.read.workbook import Refused, sheet_rows
from cloudtune.files.regular_file import open_regular

if TYPE_CHECKING:
    from collections.abc import Iterator

BATCH_ROWS = 1024
ROWS, FAULT, END = b"R", b"F", b"E"
"""The first byte of a frame: rows, an error (code, message, fix), the end of the file."""
HEAD_BYTES = 9
"""The first byte, and the size of what follows in 8 bytes."""
MAX_MEMORY = 8 << 30
BATCH_SECONDS = 300
"""One batch may take so long to read."""
MAX_DEPTH = 64
MAX_COLUMNS = 10_000
MAX_VALUES = 8 << 20
"""In the rows that are converted at once."""
ROW_OVERHEAD = 64
"""Bytes that are counted for each row besides its content."""
_CONVERT_FIX = "write the file again, or write its rows as JSONL"
_encoder = msgspec.msgpack.Encoder()
_request = msgspec.msgpack.Decoder(tuple[str, bytes])


def main() -> None:
    """Read one file after the other until the input ends."""
    requests, out = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    # Libraries may print to standard output, which belongs to the frames.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    _limit()
    with contextlib.suppress(BrokenPipeError):
        while head := requests.read(8):
            _answer(*_request.decode(requests.read(int.from_bytes(head, "little"))), out)
    os._exit(0)  # what pyarrow still holds of a damaged file is not cleaned up


def _answer(kind: str, path: bytes, out: IO[bytes]) -> None:
    """Send the rows of one file, and how its end was reached."""
    _watch(BATCH_SECONDS)
    try:
        with open_regular(os.fsdecode(path)) as file:
            for rows in map(_encoder.encode, sheet_rows(file)) if kind == "xlsx" else _rows(kind, file):
                _watch(0)  # the reader may take its time
                send(out, ROWS, rows)
                _watch(BATCH_SECONDS)
        end = END, b""
    except Refused as refused:
        end = FAULT, _encoder.encode(refused.args)
    except MemoryError:
        message = "reading this file requires more memory than allowed"
        end = FAULT, _encoder.encode(("too_large", message, "write it again with smaller row groups"))
    except BrokenPipeError:
        raise
    except Exception as error:  # noqa: BLE001 - pyarrow raises many types of its own and of Python's
        reason = "a value is out of range" if isinstance(error, OverflowError) else str(error)
        message = f"not a valid {kind} file: {reason}"[:500]
        end = FAULT, _encoder.encode((f"broken_{kind}", message, "create it again"))
    _watch(0)
    send(out, *end)


def ask(to: IO[bytes], kind: str, path: str) -> None:
    """Ask for the rows of a file."""
    request = _encoder.encode((kind, os.fsencode(path)))
    to.write(len(request).to_bytes(8, "little") + request)
    to.flush()


def send(out: IO[bytes], first: bytes, content: bytes) -> None:
    """Write one frame."""
    out.write(first + len(content).to_bytes(HEAD_BYTES - 1, "little"))
    out.write(content)
    out.flush()


def _limit() -> None:
    """Limit the memory of this process, where the system can do that."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        memory = min(MAX_MEMORY, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        _, most = resource.getrlimit(resource.RLIMIT_DATA)
        if most == resource.RLIM_INFINITY or most > memory:
            resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))


def _watch(seconds: int) -> None:
    """End the process after so many seconds; 0 sets no end."""
    if hasattr(signal, "alarm"):
        signal.alarm(seconds)


def _rows(kind: str, file: IO[bytes]) -> Iterator[bytes]:
    """The file's rows, each list of them encoded."""
    size = os.fstat(file.fileno()).st_size
    number, decoded, values = 1, 0, 0
    for batch in (_parquet if kind == "parquet" else _arrow)(_source(file)):
        decoded += batch.get_total_buffer_size()  # with the dictionaries, which each batch validates again
        if message := expansion(size, decoded, number - 1 + batch.num_rows):
            raise Refused("decompressed_too_large", message, AS_JSONL)
        batch.validate(full=True)
        values += sum(map(_values, batch.columns))
        if message := expansion(size, values=values):
            raise Refused("decompressed_too_large", message, AS_JSONL)
        start = 0
        while start < batch.num_rows:
            count, data = _some(batch, start, number + start)
            yield data
            start += count
        number += batch.num_rows


def _some(batch: Any, start: int, number: int) -> tuple[int, bytes]:
    """How many of the batch's rows from ``start`` on, and those rows encoded; fewer where they are large."""
    count = min(BATCH_ROWS, batch.num_rows - start)
    while True:
        some = batch.slice(start, count)
        if sum(map(_bytes, some.columns)) <= MAX_ROW_BYTES and sum(map(_values, some.columns)) <= MAX_VALUES:
            with contextlib.suppress(MemoryError):
                data = _encoder.encode(_cells(some))
                if len(data) <= MAX_ROW_BYTES:
                    return count, data
        if count == 1:
            raise Refused("row_too_long", f"row {number:,} is too long", TOO_LONG_FIX)
        count //= 2


def _cells(batch: Any) -> list[dict[str, Any]]:
    """The rows. NaN means a missing value, which is null."""
    from pyarrow import types

    rows: list[dict[str, Any]] = batch.to_pylist()
    for field in batch.schema:
        kind = field.type.value_type if types.is_dictionary(field.type) else field.type
        if types.is_floating(kind):
            for row in rows:
                if row[field.name] != row[field.name]:
                    row[field.name] = None
    return rows


def _bytes(array: Any) -> int:
    """The size of the array. A dictionary, which many batches share, does not count."""
    from pyarrow import types

    return (array.indices if types.is_dictionary(array.type) else array).nbytes  # type: ignore[no-any-return]


def _values(array: Any) -> int:
    """How many values the array holds, those in lists and structs included."""
    from pyarrow import types

    kind = array.type
    if hasattr(kind, "storage_type"):
        return _values(array.storage)
    if types.is_struct(kind):
        return len(array) + sum(map(_values, array.flatten()))
    if types.is_nested(kind):
        return len(array) + _values(array.flatten())
    return len(array)


def _check_schema(schema: Any) -> None:
    """Refuse what no rows of training data have, before any of it is converted."""
    if len(schema) > MAX_COLUMNS:
        raise Refused("bad_header", f"the file has {len(schema):,} columns", f"keep {MAX_COLUMNS:,} or fewer")
    names = schema.names
    if twice := [name for name, times in Counter(names).items() if times > 1]:
        raise Refused("bad_header", f"duplicate column {twice[0][:SHOWN_CHARS]}", "rename one of them")
    for field in schema:
        if message := _unfit(field.type):
            raise Refused("column_type", f"column {field.name[:SHOWN_CHARS]} {message}", _CONVERT_FIX)


def _unfit(kind: Any) -> str | None:
    """What is wrong with a column's type."""
    from pyarrow import types

    left = [(kind, 1)]
    while left:
        kind, depth = left.pop()
        if depth > MAX_DEPTH or len(left) > MAX_COLUMNS:
            return "is nested too deeply"
        if types.is_dictionary(kind) and types.is_nested(kind.value_type):
            return "has a dictionary of nested values, which cannot be read"
        can_be_read = not types.is_nested(kind) or any(fits(kind) for fits in _nested_types())
        if types.is_run_end_encoded(kind) or not can_be_read:
            return f"has the type {kind}"[:100] + ", which cannot be read"
        if types.is_struct(kind) and len({kind.field(i).name for i in range(kind.num_fields)}) < kind.num_fields:
            return "has two fields of the same name"
        inner = [kind.storage_type] if hasattr(kind, "storage_type") else []
        inner += [kind.field(i).type for i in range(kind.num_fields)]
        left += [(one, depth + 1) for one in inner]
    return None


def _nested_types() -> tuple[Any, ...]:
    from pyarrow import types

    return types.is_struct, types.is_list, types.is_large_list, types.is_fixed_size_list, types.is_map


def _source(file: IO[bytes]) -> Any:
    """The file for pyarrow, mapped into memory where that can be done."""
    from pyarrow import PythonFile, memory_map

    for folder in ("/proc/self/fd", "/dev/fd"):
        with contextlib.suppress(OSError):
            return memory_map(f"{folder}/{file.fileno()}")
    return PythonFile(file, mode="r")


def _parquet(source: Any) -> Iterator[Any]:
    from pyarrow.parquet import ParquetFile

    file = ParquetFile(source, pre_buffer=False)
    _check_schema(file.schema_arrow)
    yield from file.iter_batches(BATCH_ROWS, use_threads=False)


def _arrow(source: Any) -> Iterator[Any]:
    """Arrow comes as a file with an index (Feather), or as a stream (what the datasets library writes)."""
    from pyarrow import ArrowInvalid, ipc

    try:
        file = ipc.open_file(source)
    except ArrowInvalid:
        source.seek(0)
        stream = ipc.open_stream(source)
        _check_schema(stream.schema)
        yield from stream
    else:
        _check_schema(file.schema)
        for i in range(file.num_record_batches):
            yield file.get_batch(i)


if __name__ == "__main__":
    main()
