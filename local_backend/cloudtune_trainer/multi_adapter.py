"""One loaded base model with the adapters of several jobs."""

from __future__ import annotations

import hashlib
import threading
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from cloudtune_trainer import models
from cloudtune_trainer.adapters import ADAPTERS
from cloudtune_trainer.devices import Devices
from cloudtune_trainer.fingerprint import check_base
from cloudtune_trainer.generate import Model, base_of
from cloudtune_trainer.merging import remove_adapter_layers
from cloudtune_trainer.problems import TrainingProblem
from cloudtune_trainer.tuned import ADAPTER_CONFIG, check_adapter, check_mergeable, read_object, read_tuned
from cloudtune_trainer.weights import check_adapter_weights

if TYPE_CHECKING:
    from collections.abc import Iterator


class MultiAdapterModel:
    """The base model of a folder, loaded once. Generation is serialized; adapters can be loaded meanwhile."""

    def __init__(self, folder: Path, *, device: str = "auto") -> None:
        devices = Devices(device, "auto")
        dtype = devices.compute if devices.device.type != "cpu" else torch.float32
        self._base = models.BaseModel(str(folder))
        self._network: Any = models.load_model(self._base, dtype=dtype).to(devices.device)
        self._lock = threading.Lock()
        self._adapted: dict[str, Model] = {}

    @property
    def names(self) -> frozenset[str]:
        """The names of the loaded adapters."""
        return frozenset(self._adapted)

    def add(self, name: str, folder: Path) -> None:
        """Load an adapter from the folder that training wrote. Raises TrainingProblem if it is not a valid adapter."""
        from peft import PeftModel

        tuned = read_tuned(folder)
        if tuned["merged"] or not (folder / ADAPTER_CONFIG).is_file():
            raise TrainingProblem("bad_spec", f"{folder.name} has no adapter: it is a full fine-tune")
        if tuned["base"]["source"] != "gguf":
            check_base(tuned, Path(self._base.path))
        elif Path(base_of(folder, tuned).path).resolve() != Path(self._base.path).resolve():
            what = f"{folder.name} was trained on {tuned['base']['path']}, and this is {self._base.path}"
            raise TrainingProblem("base_changed", what, "Use the base model of the adapter.")
        check_mergeable(tuned["adapter"])  # only such adapters can share a base model's layers
        check_adapter(folder)
        if tuned["adapter"] in ADAPTERS and ADAPTERS[tuned["adapter"]].quantized:
            what = f"{folder.name} was trained on a quantized base model"
            raise TrainingProblem("bad_spec", what, "Serve it alone, or merge it.")
        if read_object(folder / ADAPTER_CONFIG).get("bias", "none") != "none":
            what = f"{folder.name} trains biases of the base model, which other adapters would get too"
            raise TrainingProblem("bad_spec", what, "Serve it alone.")
        with self._lock, models.found(models.BaseModel(str(folder))):
            if name in self._adapted:
                return
            before = self._network
            try:
                if isinstance(before, PeftModel):
                    before.load_adapter(folder, adapter_name=_key(name))
                else:
                    self._network = PeftModel.from_pretrained(before, folder, adapter_name=_key(name))
                check_adapter_weights(self._network, folder, _key(name))
                self._network.eval()
                self._adapted[name] = self._model(folder, name, continues=tuned["method"] == "cpt")
            except BaseException:
                self._network = before
                if not isinstance(before, PeftModel):
                    remove_adapter_layers(before)
                elif _key(name) in before.peft_config:
                    self._delete(name)
                raise

    def remove(self, name: str) -> None:
        """Unload an adapter. One that is not loaded is ignored."""
        with self._lock:
            if self._adapted.pop(name, None) is None:
                return
            if not self._adapted:
                self._network = self._network.get_base_model()
                remove_adapter_layers(self._network)  # peft's unload keeps trained copies of modules_to_save
            else:
                self._delete(name)

    def _delete(self, name: str) -> None:
        self._network.set_adapter(_key(next(iter(self._adapted))))  # no adapter is unloaded while it is active
        self._network.delete_adapter(_key(name))

    def model(self, name: str | None) -> Model:
        """A model with that adapter, or with none. Raises TrainingProblem for one that is not loaded."""
        if name is None:
            return self._model(self._base.path, None, continues=False)
        if name not in self._adapted:
            raise TrainingProblem("model_not_found", f"this model has no adapter {name}")
        return self._adapted[name]

    def _model(self, folder: Path | str, name: str | None, *, continues: bool) -> Model:
        tokenizer = models.load_tokenizer(models.BaseModel(str(folder)))
        return Model(
            self._network, tokenizer, continues=continues, lock=self._lock, adapted=lambda: self._with(name)
        )  # fmt: skip

    def _with(self, name: str | None) -> AbstractContextManager[Any]:
        from peft import PeftModel

        if not isinstance(self._network, PeftModel):
            return nullcontext()
        return self._network.disable_adapter() if name is None else self._set(name)

    @contextmanager
    def _set(self, name: str) -> Iterator[None]:
        self._network.set_adapter(_key(name))
        yield


def _key(name: str) -> str:
    """A valid name of a module."""
    return f"adapter_{hashlib.sha256(name.encode()).hexdigest()[:16]}"
