"""Image classifiers: the loss of transformers' own forward pass, every adapter and layer schedule, and decoding."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from cloudtune_trainer import models
from cloudtune_trainer.export import export
from cloudtune_trainer.images import decoded
from cloudtune_trainer.problems import TrainingProblem
from cloudtune_trainer.processors import load_processor
from cloudtune_trainer.run_spec import Adapter, DataFiles, ModelSource, RunSpec
from cloudtune_trainer.tasks.table import open_model, task_for
from cloudtune_trainer.tiny_media import write_vision_model

from .conftest import Runs, events, metrics

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import Rows

METHOD = "image_classification"
SHAPES = ("bar", "cross", "frame")


def drawn(shape: str, chance: np.random.Generator) -> Image.Image:
    """The shape at a random place, in random colors, with noise."""
    cells = np.zeros((9, 9), dtype=bool)
    cells[4, :] = shape in ("bar", "cross")
    cells[:, 4] = shape == "cross"
    if shape == "frame":
        cells[[0, -1], :] = cells[:, [0, -1]] = True
    image = np.zeros((16, 16), dtype=bool)
    top, left = chance.integers(0, 3, 2)
    image[top : top + 9, left : left + 9] = cells
    pixels = np.where(image[..., None], chance.integers(150, 256, 3), chance.integers(0, 100, 3))
    return Image.fromarray((pixels + chance.integers(0, 30, pixels.shape)).clip(0, 255).astype(np.uint8))


def write_rows(folder: Path, count: int, seed: int) -> Rows:
    chance = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(count):
        shape = SHAPES[number % 3]
        drawn(shape, chance).save(folder / f"{seed}-{number}.png")
        rows.append({"image": str(folder / f"{seed}-{number}.png"), "label": shape})
    return rows


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sizes = {"image_size": 16, "patch_size": 4, "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2}
    return write_vision_model(tmp_path_factory.mktemp("vit"), model=sizes)


def spec_of(base: Path, adapter: dict[str, Any]) -> RunSpec:
    return RunSpec(
        version=2, model=ModelSource(source="folder", path=str(base)), data=DataFiles(train="t"), method=METHOD,
        adapter=Adapter(**adapter),
    )  # fmt: skip


@pytest.mark.parametrize("adapter", ["full", "lora"])
def test_loss_and_gradient_are_those_of_transformers(base: Path, tmp_path: Path, adapter: str) -> None:
    spec, place = spec_of(base, {"type": adapter}), models.BaseModel(str(base))
    rows = write_rows(tmp_path, 7, seed=0)
    task, processor = task_for(spec), load_processor(place, "image")
    network = task.load_model(place, processor, lambda: rows, dtype=torch.float32, weights=None, dropout=None)
    model = models.make_trainable(network, spec, place, None, task.peft_task_type)
    assert task.random_weights == ("classifier.bias", "classifier.weight")
    ours = task.forward(model, task.collate(task.encode(rows, processor), range(7)))
    ours.loss.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    assert any("classifier" in name for name in gradients)
    model.zero_grad()
    opened = [Image.open(row["image"]).convert("RGB") for row in rows]
    inputs = processor(images=opened, return_tensors="pt")
    labels = torch.tensor([task.labels.index(row["label"]) for row in rows])
    theirs = model(**inputs, labels=labels).loss * 7
    theirs.backward()
    torch.testing.assert_close(ours.loss, theirs)
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(gradients[name], parameter.grad, msg=name)
    assert "torchvision" not in sys.modules


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Rows]:
    folder = tmp_path_factory.mktemp("shapes")
    return {"rows": write_rows(folder, 240, seed=1), "held_out": write_rows(folder, 60, seed=2)}


def test_a_trained_model_tells_shapes_apart_and_an_untrained_one_does_not(
    base: Path, shapes: dict[str, Rows], tmp_path: Path
) -> None:
    runs, found = Runs(tmp_path, base), {}
    for name, rate in (("trained", 3e-3), ("control", 1e-9)):
        hyper = {"epochs": 6, "batch_size": 16, "learning_rate": rate, "packing": False}
        run = runs.make(name, **shapes, method=METHOD, adapter={"type": "full"}, hyperparameters=hyper)
        assert runs.train(run) == "succeeded"
        found[name] = max(one["values"]["accuracy"] for one in metrics(run, "validation"))
        warnings = [event["message"] for event in events(run, "warning")]
        assert any(text.startswith("not learning: ") for text in warnings) is (name == "control"), warnings
    assert found["trained"] >= 0.95
    assert found["control"] < 0.7


@pytest.mark.parametrize(("adapter", "layers"), [
    ({"type": "lora", "rank": 4}, {"unfreeze": [{"layers": 1, "share": 0.5}]}),
    ({"type": "full"}, {"freeze_depth": 1, "decay": 0.5}),
    ({"type": "full"}, {"unfreeze": [{"share": 0.3}]}),
    ({"type": "dora"}, {}), ({"type": "ia3"}, {}), ({"type": "head_only"}, {}),
], ids=["lora stages", "freeze", "unfreeze", "dora", "ia3", "head_only"])  # fmt: skip
def test_adapters_and_layer_schedules_train_and_answer(
    base: Path, shapes: dict[str, Rows], tmp_path: Path, adapter: dict[str, Any], layers: dict[str, Any]
) -> None:
    runs = Runs(tmp_path, base)
    hyper = {"max_steps": 4, "batch_size": 8, "packing": False}
    rows = shapes["rows"][:24]
    run = runs.make(rows=rows, method=METHOD, adapter=adapter, layers=layers, hyperparameters=hyper)
    assert runs.train(run) == "succeeded"
    opened, copy = open_model(run.model), tmp_path / "copy.png"
    shutil.copyfile(rows[0]["image"], copy)
    (answer,) = opened.predict([str(copy)])
    assert set(answer.scores or ()) == set(SHAPES)
    shutil.copyfile(rows[1]["image"], copy)
    (other,) = opened.predict([str(copy)])  # the file has changed since
    assert other.scores != answer.scores
    if adapter["type"] == "lora":
        assert any("stage 2 of 2" in str(event) for event in events(run, "message"))
        export(run.model, tmp_path / "merged", merged=True)
        (merged,) = open_model(tmp_path / "merged").predict([{"image": rows[0]["image"]}])
        assert merged.scores == pytest.approx(answer.scores, abs=1e-4)


def test_images_are_upright_rgb_of_8_bits(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 10, 3), dtype=np.uint8)
    image, exif = Image.fromarray(pixels), Image.Exif()
    exif[0x0112] = 6  # rotated by 90 degrees
    image.save(tmp_path / "turned.png", exif=exif)
    assert decoded(str(tmp_path / "turned.png")).size == (6, 10)
    expected = ImageOps.exif_transpose(Image.open(tmp_path / "turned.png")).convert("RGB")
    assert np.array_equal(np.asarray(decoded(str(tmp_path / "turned.png"))), np.asarray(expected))
    deep = pixels[..., 0].astype(np.uint16) * 257
    Image.fromarray(deep).save(tmp_path / "deep.png")
    assert np.array_equal(np.asarray(decoded(str(tmp_path / "deep.png")))[..., 1], pixels[..., 0])
    image.save(tmp_path / "photo.jpg", "MPO", save_all=True, append_images=[image.rotate(90)], quality=100)
    assert decoded(str(tmp_path / "photo.jpg")).size == image.size
    image.convert("CMYK").save(tmp_path / "inks.jpg", quality=100)
    assert decoded(str(tmp_path / "inks.jpg")).mode == "RGB"


@pytest.mark.parametrize(("kind", "reason"), [
    ("cut", "truncated"), ("none", "does not exist"), ("animated", "it is animated"), ("large", "10000 x 7000 pixels"),
])  # fmt: skip
def test_images_that_cannot_be_used_are_named(tmp_path: Path, kind: str, reason: str) -> None:
    path = tmp_path / "image.gif"
    image = Image.effect_noise((40, 40), 90).convert("RGB")
    if kind == "cut":
        path = tmp_path / "image.jpg"
        image.save(path)
        path.write_bytes(path.read_bytes()[:-200])
    if kind == "animated":
        image.save(path, save_all=True, append_images=[image.rotate(90)])
    if kind == "large":
        path = tmp_path / "image.png"
        Image.new("1", (10_000, 7_000)).save(path)
    with pytest.raises(TrainingProblem, match=reason) as refused:
        decoded(str(path))
    assert str(path) in refused.value.message


def test_a_processor_of_another_size_and_a_text_model_are_refused(base: Path, tmp_path: Path, tiny_model: Path) -> None:
    rows = write_rows(tmp_path / "rows", 6, seed=0)
    other = write_vision_model(tmp_path / "other", model={"image_size": 16, "patch_size": 4},
                               processor={"size": {"height": 20, "width": 20}})  # fmt: skip
    for model, reason in ((other, "reads images of shape"), (tiny_model, "no processor that reads an image")):
        runs = Runs(tmp_path / model.name, model)
        run = runs.make(rows=rows, method=METHOD, adapter={"type": "full"}, hyperparameters={"packing": False})
        with pytest.raises(TrainingProblem, match=reason):
            runs.train(run)
