"""Image classification: labels of images, from a head on a vision model. See ``label_problems``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from cloudtune_trainer.images import ImageReader
from cloudtune_trainer.problems import TrainingProblem
from cloudtune_trainer.sequences import Batch
from cloudtune_trainer.tasks.media import MediaSamples, checked_rows, media_samples, path_of
from cloudtune_trainer.tasks.sequence_classification import Classifier, SequenceClassification

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from torch import Tensor

    from cloudtune_trainer.models import BaseModel
    from cloudtune_trainer.records import Record
    from cloudtune_trainer.run_spec import RunSpec
    from cloudtune_trainer.tasks.predictor import Input, Prediction


class ImageClassification(SequenceClassification):
    """See the module."""

    peft_task_type = None

    def __init__(self, spec: RunSpec) -> None:
        super().__init__(spec)
        self._reader: ImageReader | None = None

    def load_model(
        self, base: BaseModel, tokenizer: Any, records: Callable[[], Iterable[Record]], *, dtype: torch.dtype,
        weights: Path | None, dropout: float | None,
    ) -> Any:  # fmt: skip
        """See `Task.load_model`. ``tokenizer`` is the image processor."""
        network = super().load_model(base, tokenizer, records, dtype=dtype, weights=weights, dropout=dropout)
        self._reader = ImageReader(tokenizer)
        first = next(iter(self._checked(records())))
        _check_size(network, self._reader.inputs([first["image"]])["pixel_values"])
        return network

    def encode(self, records: Iterable[Record], tokenizer: Any) -> MediaSamples:  # type: ignore[override]
        """See `Task.encode`. Images are decoded when a batch needs them."""
        rows = list(self._checked(records))
        targets = [self._problem.target(record, row) for row, record in enumerate(rows, 1)]
        return media_samples([record["image"] for record in rows], targets)

    def collate(self, samples: MediaSamples, chosen: Sequence[int]) -> Batch:  # type: ignore[override]
        """See `Task.collate`."""
        assert self._reader is not None, "the model is loaded first"
        inputs = self._reader.inputs([samples.paths[i] for i in chosen])
        labels = torch.from_numpy(samples.labels[list(chosen)])
        return Batch(inputs=inputs, labels=labels, tokens=len(chosen), count=len(chosen))

    def _logits(self, model: Any, batch: Batch) -> Tensor:
        return model(**batch.inputs).logits  # type: ignore[no-any-return]

    @staticmethod
    def _checked(records: Iterable[Record]) -> Iterator[Record]:
        return checked_rows(records, "image", "label")


class ImageClassifier(Classifier):
    """A trained classifier of images."""

    reads = "image"

    def __init__(self, network: Any, tokenizer: Any, tuned: Mapping[str, Any]) -> None:
        super().__init__(network, tokenizer, tuned)
        self._reader = ImageReader(tokenizer)

    def read_all(self, inputs: Sequence[Any]) -> list[Any]:
        """See `Predictor.read_all`. Images are read again for each call: their files may have changed."""
        self._reader = ImageReader(self.tokenizer)
        return super().read_all(inputs)

    def read(self, given: Input) -> Any:
        """See `Predictor.read`."""
        path = path_of(given, "image")
        self._reader.inputs([path])  # so that a damaged image is found before the first prediction
        return path

    def predict_batch(self, rows: Sequence[Any]) -> list[Prediction]:
        """See `Predictor.predict_batch`."""
        logits = self.network(**self.moved(self._reader.inputs(rows))).logits
        return self._problem.predictions(logits.float(), self.labels)


def _check_size(network: Any, pixels: Tensor) -> None:
    """Raises ``bad_spec`` if the processor makes images of another size, or with other channels, than the model's."""
    config, found = network.config, tuple(pixels.shape[1:])
    size = getattr(config, "image_size", found[1:])
    height, width = (size, size) if isinstance(size, int) else tuple(size)
    needed = (getattr(config, "num_channels", found[0]), height, width)
    if found != needed:
        what = f"the model reads images of shape {needed} (channels, height, width), and its processor makes {found}"
        raise TrainingProblem("bad_spec", what, "Set size in preprocessor_config.json to the model's image_size.")
