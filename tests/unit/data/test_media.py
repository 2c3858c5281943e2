"""Rows that name images: folders of classes, checks, and hashes that cover the bytes of the files."""

from __future__ import annotations

import base64
import io
import json
import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from cloudtune.data import Dataset, encode, prepare
from cloudtune.data.media import images
from cloudtune.data.media.addressing import media_folder
from cloudtune.data.report import check, convert
from cloudtune.data.spool import Spool
from cloudtune.errors import DataError
from cloudtune.plan import Step
from cloudtune.spec import Data, JobSpec

if TYPE_CHECKING:
    from cloudtune.errors import Problem
    from cloudtune.plan import DataReport

METHOD = "image_classification"


def noise(seed: int, size: tuple[int, int] = (12, 16)) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def saved(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def folders(root: Path, count: int = 6) -> Path:
    """A folder for each of two classes."""
    for number in range(count):
        place = root / ("cat", "dog")[number % 2] / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        noise(number).save(place)
    return root


def prepared(**data: Any) -> DataReport:
    return prepare(Data.model_validate(data), method=METHOD)


def problems(**data: Any) -> dict[str, Problem]:
    """The problems by code, of rows that can be used or not."""
    try:
        found = prepared(**data).problems
    except DataError as error:
        found = error.problems
    return {problem.code: problem for problem in found}


def rows(path: Path, content: list[dict[str, Any]]) -> str:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in content))
    return str(path)


def test_a_folder_for_each_class_a_glob_and_rows_are_the_same_data(tmp_path: Path) -> None:
    root = folders(tmp_path / "photos")
    files = sorted(root.glob("*/*.png"))
    listed = [{"image": str(file.relative_to(tmp_path)), "label": file.parent.name} for file in files]
    table = tmp_path / "rows.csv"
    table.write_text("image,label\n" + "".join(f"{row['image']},{row['label']}\n" for row in listed))
    sources = [str(root), f"{root}/*/*.png", rows(tmp_path / "rows.jsonl", listed), str(table)]
    found = [prepared(train=source) for source in sources]
    assert len({report.fingerprint for report in found}) == 1
    assert found[0].splits["train"].rows == 6
    assert found[0].splits["train"].kind == "image_label"


def test_the_fingerprint_covers_the_bytes_of_the_files(tmp_path: Path) -> None:
    root = folders(tmp_path / "photos")
    before = prepared(train=str(root))
    noise(99).save(root / "cat" / "0.png")
    assert prepared(train=str(root)).fingerprint != before.fingerprint


def test_encoded_rows_have_their_files_under_names_of_content(tmp_path: Path) -> None:
    root = folders(tmp_path / "photos")
    data = Data.model_validate({"train": str(root)})
    planned = prepare(data, method=METHOD).splits["train"].sha256
    to = tmp_path / "train.jsonl"
    encode(data, split="train", format="cloudtune", to=to, method=METHOD, expect_sha256=planned)
    written = [json.loads(line) for line in to.read_text().splitlines()]
    assert [row["label"] for row in written] == ["cat"] * 3 + ["dog"] * 3
    for row, file in zip(written, sorted(root.glob("*/*.png")), strict=True):
        folder, name = row["image"].split("/")
        assert folder == "media"
        assert (media_folder(to) / name).read_bytes() == file.read_bytes()
    noise(99).save(root / "cat" / "0.png")
    with pytest.raises(DataError, match="have changed since the check"):
        encode(data, split="train", format="cloudtune", to=tmp_path / "b.jsonl", method=METHOD, expect_sha256=planned)
    assert not media_folder(tmp_path / "b.jsonl").exists()


def test_the_rest_of_a_half_deleted_folder_is_completed(tmp_path: Path) -> None:
    spec = JobSpec.model_validate(
        {"model": "m", "method": METHOD, "data": {"train": str(folders(tmp_path / "photos"))}}
    )
    request = {
        "split": "train",
        "format": "cloudtune",
        "sha256": prepare(spec.data, method=METHOD).splits["train"].sha256,
    }
    step, spool = Step(id="rows", kind="encode", title="rows", request=request), Spool(tmp_path / "spool")
    rows_file = Path(spool.encode(step, spec)["path"])
    first, *others = media_folder(rows_file).iterdir()
    rows_file.unlink()
    first.unlink()  # the process ended while it deleted them
    spool.encode(step, spec)
    assert set(media_folder(rows_file).iterdir()) == {first, *others}
    assert len(list(spool.folder.iterdir())) == 2


def test_duplicates_conflicts_and_leaks_are_found_by_content(tmp_path: Path) -> None:
    root = folders(tmp_path / "photos")
    held_out = folders(tmp_path / "held_out", count=2)  # the same two images as the first of each class
    (root / "cat" / "copy.png").write_bytes((root / "cat" / "0.png").read_bytes())
    (root / "dog" / "wrong.png").write_bytes((root / "cat" / "2.png").read_bytes())
    found = problems(train=str(root), validation=str(held_out))
    assert "0.png" in found["duplicate"].message
    assert found["duplicate"].file == str(root / "cat" / "copy.png")
    assert "the same file has a different label" in found["conflict"].message
    assert "is also in the train set" in found["leak"].message
    (held_out / "dog" / "1.png").write_bytes((root / "cat" / "4.png").read_bytes())
    (held_out / "cat" / "0.png").write_bytes(saved(noise(50)))
    assert "with another label" in problems(train=str(root), validation=str(held_out))["leak"].message


def bomb() -> bytes:
    """A PNG of 10,000 x 10,000 pixels in a few kB."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 10_000, 10_000, 8, 0, 0, 0, 0))
    body = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def animated() -> bytes:
    return saved(noise(1), "GIF", save_all=True, append_images=[noise(2)])


@pytest.mark.parametrize(("name", "content", "code"), [
    ("a.jpg", saved(noise(0, (64, 64)), "JPEG")[:-400], "damaged_image"),
    ("a.png", saved(noise(0))[:-60], "damaged_image"),
    ("a.png", b"no image at all", "not_an_image"),
    ("a.png", b"%PDF-1.7\n", "not_an_image"),
    ("a.png", bomb(), "too_many_pixels"),
    ("a.gif", animated(), "animated_image"),
    ("a.tif", saved(Image.fromarray(np.ones((9, 9), dtype=np.float32)), "TIFF"), "image_mode"),
    ("a.png", saved(noise(0), "JPEG"), "wrong_extension"),
    ("a.png", saved(noise(0, (3, 40))), "tiny_image"),
    ("a.png", saved(Image.new("RGB", (20, 20), "red")), "constant_image"),
    ("a.png", b"", "empty_file"),
])  # fmt: skip
def test_each_fault_of_a_file_has_its_code_place_and_remedy(
    tmp_path: Path, name: str, content: bytes, code: str
) -> None:
    root = folders(tmp_path / "photos")
    (root / "cat" / name).write_bytes(content)
    found = problems(train=str(root))[code]
    assert found.file == str(root / "cat" / name)
    assert name in found.message
    assert found.fix
    assert (found.severity == "warning") is (code in ("wrong_extension", "tiny_image", "constant_image"))
    assert code in images.RULES or code == "empty_file"


@pytest.mark.parametrize("image", [
    noise(0).convert("CMYK"), noise(0).convert("L"), noise(0).convert("P"), noise(0).convert("RGBA"),
    Image.fromarray(np.random.default_rng(0).integers(0, 65536, (9, 9), dtype=np.uint16)),
], ids=["CMYK", "gray", "palette", "alpha", "16 bits"])  # fmt: skip
def test_other_colors_are_accepted(image: Image.Image) -> None:
    kind = "TIFF" if image.mode == "CMYK" else "PNG"
    assert images.check(saved(image, kind), "a.tif" if kind == "TIFF" else "a.png").problems == []


def test_a_photo_with_further_images_is_a_jpeg() -> None:
    photo = saved(noise(0), "MPO", save_all=True, append_images=[noise(1)])
    assert images.check(photo, "a.jpg") == ([], ".jpg")


def test_any_failure_of_a_decoder_is_a_damaged_image() -> None:
    broken = bytearray(saved(noise(0), "TIFF"))
    broken[8] += 1  # the number of its fields: Pillow raises a TypeError
    (problem,) = images.check(bytes(broken), "a.tif").problems
    assert problem.code == "damaged_image"
    assert "Missing dimensions" in problem.message


def test_a_row_names_its_own_line_and_all_rows_are_checked(tmp_path: Path) -> None:
    root = folders(tmp_path / "photos")
    content = [
        {"image": "photos/cat/0.png", "label": "cat"}, {"image": "photos/cat/none.png", "label": "cat"},
        {"image": "https://example.com/a.png", "label": "dog"}, {"image": "photos", "label": "dog"},
    ]  # fmt: skip
    found = problems(train=rows(tmp_path / "rows.jsonl", content))
    places = {code: (problem.line, problem.field) for code, problem in found.items() if problem.severity == "error"}
    assert places == {"no_file": (2, "image"), "remote_file": (3, "image"), "is_directory": (4, "image")}
    inline = "data:image/png;base64," + base64.b64encode((root / "cat" / "0.png").read_bytes()).decode()
    same = [{"image": inline, "label": "cat"}, {"image": "photos/cat/0.png", "label": "cat"}]
    other = {"image": "photos/dog/1.png", "label": "dog"}
    assert "duplicate" in problems(train=rows(tmp_path / "rows.jsonl", [*same, other]))


def test_rows_that_are_written_elsewhere_name_the_same_files(tmp_path: Path) -> None:
    places = []
    for number, name in enumerate(("a", "b")):
        (tmp_path / name).mkdir()
        noise(number).save(tmp_path / name / "1.png")
        noise(number + 2).save(tmp_path / name / "2.png")
        listed = [{"image": "1.png", "label": "cat"}, {"image": "2.png", "label": "dog"}]
        places.append(rows(tmp_path / name / "rows.jsonl", listed))
    (tmp_path / "out").mkdir()
    Dataset.read(*places).dedupe().write(tmp_path / "out" / "rows.jsonl")
    convert(places, to="cloudtune", out=tmp_path / "out" / "converted.jsonl", method=METHOD)
    for name in ("rows.jsonl", "converted.jsonl"):
        written = [json.loads(line)["image"] for line in (tmp_path / "out" / name).read_text().splitlines()]
        assert written == [str(tmp_path / place) for place in ("a/1.png", "a/2.png", "b/1.png", "b/2.png")]
        assert prepared(train=str(tmp_path / "out" / name)).fingerprint == prepared(train=places).fingerprint


def test_similar_paths_are_no_near_duplicates(tmp_path: Path) -> None:
    data = Dataset.read(folders(tmp_path / "photos"))
    with pytest.raises(DataError, match="these rows name files"):
        data.dedupe(near=0.8).count()


def test_folders_that_are_no_classes_are_explained(tmp_path: Path) -> None:
    root = folders(tmp_path / "photos")
    (root / "bird").mkdir()
    (root / "notes.txt").write_text("x")
    found = problems(train=str(root))
    assert "'bird'" in found["empty_class"].message
    assert "notes.txt" in found["not_images"].message
    noise(3).save(root / "loose.png")
    assert "loose.png" in problems(train=str(root))["no_class"].message
    (tmp_path / "nothing").mkdir()
    assert "one folder of images for each label" in str(problems(train=str(tmp_path / "nothing"))["is_directory"].fix)
    only = folders(tmp_path / "one", count=1)
    assert "one_label" in problems(train=str(only))


def test_the_check_command_finds_the_same(tmp_path: Path) -> None:
    root = folders(tmp_path / "photos")
    assert check(str(root)).ok
    (root / "cat" / "a.png").write_bytes(b"no image")
    found = check(str(root))
    assert not found.ok
    assert {problem.code for problem in found.problems if problem.severity == "error"} == {"not_an_image"}
