"""Untrusted archives are unpacked completely and safely, or not at all."""

from __future__ import annotations

import gzip
import io
import os
import random
import stat
import tarfile
import tracemalloc
from pathlib import Path

import pytest

from cloudtune.errors import ArchiveError
from cloudtune.files.archives import Limits, extract_tar, read_tar, safe_parts

BLOCK = 512


def member(name, content=b"x", kind=tarfile.REGTYPE, **fields):
    entry = tarfile.TarInfo(name)
    entry.type, entry.size = kind, len(content)
    for key, value in fields.items():
        setattr(entry, key, value)
    return entry, content


def packed(*members, compress=True, form=tarfile.PAX_FORMAT):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz" if compress else "w", format=form) as archive:
        for entry, content in members:
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def plain(*members, form=tarfile.PAX_FORMAT):
    return packed(*members, compress=False, form=form)


def folder(name, **fields):
    return member(name, b"", tarfile.DIRTYPE, **fields)


def link(name, target, kind=tarfile.SYMTYPE):
    return member(name, b"", kind, linkname=target)


def renamed(data, old, new):
    """The same archive with a name in its headers changed, and the checksums made right again."""
    blocks = [bytearray(data[start : start + BLOCK]) for start in range(0, len(data), BLOCK)]
    for block in blocks:
        if block.startswith(old) and block[257:262] == b"ustar":
            block[: len(new)] = new
            block[148:156] = b" " * 8
            block[148:156] = b"%06o\0 " % sum(block)
    return b"".join(blocks)


def extracted(tmp_path, data, **limits):
    return extract_tar(io.BytesIO(data), tmp_path / "out", limits=Limits(**limits))


HOSTILE = {
    "parent": lambda: packed(member("../evil")),
    "parent inside": lambda: packed(member("a/../../evil")),
    "absolute": lambda: packed(member("/tmp/evil")),
    "double slash": lambda: packed(member("a//b")),
    "dot part": lambda: packed(member("a/./b")),
    "backslash": lambda: packed(member("..\\evil")),
    "drive": lambda: packed(member("C:evil")),
    "control": lambda: packed(member("a\x1b[31m")),
    "newline": lambda: packed(member("a\nb")),
    "right to left": lambda: packed(member("a\u202egpj.exe")),
    "not UTF-8": lambda: renamed(plain(member("abc")), b"abc", b"\xff\xfe\xfd"),
    "long part": lambda: packed(member("a" * 256)),
    "long path": lambda: packed(member("/".join(["a" * 200] * 6))),
    "deep": lambda: packed(member("/".join("a" * 40))),
    "twice": lambda: packed(member("a"), member("a")),
    "case": lambda: packed(member("a"), member("A")),
    "folder case": lambda: packed(member("a/b"), member("A/c")),
    "normalization": lambda: packed(member("caf\u00e9"), member("cafe\u0301")),
    "compatibility": lambda: packed(member("\ufb01le"), member("file")),
    "file then folder": lambda: packed(member("a"), member("a/b")),
    "folder then file": lambda: packed(member("a/b"), member("a")),
    "folder twice": lambda: packed(folder("a"), folder("a")),
    "symbolic link": lambda: packed(link("a", "/etc/passwd")),
    "link, then through it": lambda: packed(link("a", ".."), member("a/evil")),
    "hard link": lambda: packed(member("b"), link("a", "b", tarfile.LNKTYPE)),
    "link to itself": lambda: packed(link("a", "a")),
    "FIFO": lambda: packed(member("a", b"", tarfile.FIFOTYPE)),
    "character device": lambda: packed(member("a", b"", tarfile.CHRTYPE)),
    "block device": lambda: packed(member("a", b"", tarfile.BLKTYPE)),
    "contiguous": lambda: packed(member("a", b"x", tarfile.CONTTYPE)),
    "unknown type": lambda: packed(member("a", b"x", b"Z")),
    "old sparse": lambda: packed(member("a", b"", tarfile.GNUTYPE_SPARSE)),
    "new sparse": lambda: packed(
        member("a", b"1\n0\n1\n" + bytes(507), pax_headers={
            "GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(1 << 50),
            "GNU.sparse.name": "a"})),
    "folder with content": lambda: plain(folder("a")).replace(b"00000000000\x00", b"00000001000\x00", 1),
    "deep escape": lambda: packed(*(link("/".join(["d" * 200] * n), ".") for n in range(1, 17)), member("x/../../e")),
    "empty": lambda: b"",
    "empty gzip": lambda: gzip.compress(b""),
    "not tar": lambda: b"<html>" * 1000,
    "zip": lambda: b"PK\x03\x04" + bytes(2000),
    "no end": lambda: plain(member("a"))[: 2 * BLOCK],
    "cut in content": lambda: plain(member("a", b"x" * 5000))[:2000],
    "cut in gzip": lambda: packed(member("a", os.urandom(5000)))[:-900],
    "cut checksum": lambda: packed(member("a"))[:-4],
    "wrong checksum": lambda: packed(member("a"))[:-8] + bytes(8),
    "cut between entries": lambda: plain(member("a"), member("b"))[: 2 * BLOCK],
    "bad second header": lambda: plain(member("a"), member("b")).replace(b"b\0", b"c\0", 1),
    "after the end": lambda: plain(member("a")) + plain(member("b")),
    "after the gzip": lambda: packed(member("a")) + b"garbage",
    "one zero block": lambda: plain(member("a"))[: 2 * BLOCK] + bytes(BLOCK) + plain(member("b")),
    "endless header": lambda: gzip.compress(_pax(1 << 25)),
    "chain of headers": lambda: gzip.compress(_pax(0) * 1500),
    "invalid size": lambda: _sized(b"\x80" + (1 << 70).to_bytes(11, "big")),
    "negative size": lambda: _sized(b"\xff" * 11 + b"\xf0"),
    "bomb": lambda: packed(member("a", bytes(70 << 20))),
}  # fmt: skip


def _pax(size):
    entry = tarfile.TarInfo("././@PaxHeader")
    entry.type, entry.size = tarfile.XHDTYPE, size
    return entry.tobuf(tarfile.USTAR_FORMAT) + b"a" * size


def _sized(field):
    block = bytearray(plain(member("a"))[:BLOCK])
    block[124:136] = field
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block) + bytes(20 * BLOCK)


@pytest.mark.parametrize("make", HOSTILE.values(), ids=HOSTILE)
def test_hostile_archive_is_refused_and_leaves_nothing(tmp_path, make):
    inside = tmp_path / "inside"
    inside.mkdir()
    with pytest.raises(ArchiveError):
        extracted(inside, make())
    assert list(tmp_path.iterdir()) == [inside]
    assert list(inside.iterdir()) == []


@pytest.mark.parametrize("make", HOSTILE.values(), ids=HOSTILE)
def test_reading_without_a_folder_refuses_the_same(make):
    with pytest.raises(ArchiveError):
        for _, content in read_tar(io.BytesIO(make())):
            while content.read(1 << 16):
                pass


@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_plain_archive_is_extracted(tmp_path, compress, form):
    long = "x" * 90 + "/" + "y" * 90
    data = packed(
        folder("./"), folder("./code", mode=0o777), member("./code/run.py", b"print(1)", mode=0o6755),
        member(long, b"long"), member("b/empty", b""), member("größe", b"1" * 70_000), compress=compress, form=form,
    )  # fmt: skip
    files = extracted(tmp_path, data)
    out = tmp_path / "out"
    assert sorted(str(path.relative_to(out)) for path in files) == sorted(["code/run.py", long, "b/empty", "größe"])
    assert (out / "code/run.py").read_bytes() == b"print(1)"
    assert (out / "größe").stat().st_size == 70_000
    modes = {stat.S_IMODE(path.stat().st_mode) for path in files}
    assert modes == {0o600}
    assert {stat.S_IMODE(path.stat().st_mode) for path in [out, *out.rglob("*")] if path.is_dir()} == {0o700}
    assert {name: content.read() for name, content in read_tar(io.BytesIO(data))}["b/empty"] == b""


def test_existing_folder_is_left_alone(tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(FileExistsError):
        extracted(tmp_path, packed(member("a")))
    assert list((tmp_path / "out").iterdir()) == []


def test_archive_on_disk_is_read_as_one_in_memory(tmp_path):
    path = tmp_path / "model.tar.gz"
    path.write_bytes(packed(member("a", b"1")))
    assert [(name, content.read()) for name, content in read_tar(path)] == [("a", b"1")]


def test_number_of_entries_is_limited(tmp_path):
    data = packed(*(member(f"f{number}") for number in range(11)))
    assert len(extracted(tmp_path, data, entries=11)) == 11
    with pytest.raises(ArchiveError, match="more than 10 entries"):
        extract_tar(io.BytesIO(data), tmp_path / "again", limits=Limits(entries=10))


def test_total_size_is_limited_by_ratio_and_absolutely(tmp_path):
    noise = packed(member("a", random.Random(0).randbytes(100_000)))
    assert extracted(tmp_path, noise, free=0, ratio=2)
    with pytest.raises(ArchiveError, match="larger than 50000 bytes"):
        extract_tar(io.BytesIO(noise), tmp_path / "again", limits=Limits(total=50_000))


def test_bomb_is_refused_before_it_fills_memory():
    data = packed(member("a", bytes(70 << 20)))
    tracemalloc.start()
    with pytest.raises(ArchiveError, match="larger than"):
        for _, content in read_tar(io.BytesIO(data)):
            while content.read(1 << 16):
                pass
    assert tracemalloc.get_traced_memory()[1] < 4 << 20
    tracemalloc.stop()


@pytest.mark.parametrize("name", ["a", "./a", "a/b", "a b/c-d_e.f", ".hidden", "ünï/文件"])
def test_ordinary_names_are_accepted(name):
    assert "/".join(safe_parts(name)) == name.removeprefix("./")


def mutated(data, draw):
    """A few bytes changed, cut out, doubled, or cut off."""
    data = bytearray(data)
    for _ in range(draw.randint(1, 4)):
        at = draw.randrange(len(data))
        match draw.randrange(5):
            case 0:
                data[at] = draw.randrange(256)
            case 1:
                data[at : at + 8] = draw.choice([b"\xff" * 8, bytes(8), b"77777777", b"\x80" + bytes(7)])
            case 2:
                del data[at : at + draw.randint(1, 600)]
            case 3:
                data[at:at] = data[max(0, at - BLOCK) : at]
            case 4:
                # A header's type, where there is one, with its checksum made right.
                start = at // BLOCK * BLOCK
                block = data[start : start + BLOCK]
                if len(block) == BLOCK:
                    block[156] = draw.choice(b"01234567LKSxgVDMZ\0")
                    block[148:156] = b" " * 8
                    block[148:156] = b"%06o\0 " % sum(block)
                    data[start : start + BLOCK] = block
        if not data:
            break
    return bytes(data)


def fuzzed(tmp_path: Path, count: int, seed: int) -> int:
    draw = random.Random(seed)
    seeds = [
        plain(folder("a"), member("a/b", b"x" * 700), member("c" * 120, b"y" * 30)),
        plain(member("k", b"z" * 1500, pax_headers={"comment": "c" * 600}), member("ü" * 60)),
        plain(member("d" * 150, b"1"), folder("e"), form=tarfile.GNU_FORMAT),
    ]
    inside, whole = tmp_path / "inside", 0
    inside.mkdir()
    for _ in range(count):
        data = mutated(draw.choice(seeds), draw)
        data = gzip.compress(data, 1) if draw.random() < 0.5 else data
        data = mutated(data, draw) if draw.random() < 0.2 and data else data
        try:
            extract_tar(io.BytesIO(data), inside / "out")
        except ArchiveError:
            assert list(inside.iterdir()) == []
            continue
        whole += 1
        for path in (inside / "out").rglob("*"):
            assert path.is_dir() or path.is_file()
            assert not path.is_symlink()
            assert path.resolve().is_relative_to(inside)
        (inside / "out").rename(tmp_path / f"kept-{whole}")
    assert {path.name.partition("-")[0] for path in tmp_path.iterdir()} <= {"inside", "kept"}
    return whole


def test_mutated_archives_are_extracted_or_refused(tmp_path):
    assert 0 < fuzzed(tmp_path, 400, seed=1) < 400


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(2, 10))
def test_thousands_of_mutated_archives(tmp_path, seed):
    fuzzed(tmp_path, 2500, seed)
