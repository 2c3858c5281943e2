"""Inference with a tuned model, or with its base model, in this process.

``Model.open`` reads the folder that training wrote (``model/`` of a run, or an export of it).
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import torch

from cloudtune_trainer import models
from cloudtune_trainer.adapters import ADAPTERS, is_whole_model
from cloudtune_trainer.batching import answers_in_batches
from cloudtune_trainer.fingerprint import check_base
from cloudtune_trainer.generation_settings import answer_ends, keep_special_tokens, padding_of
from cloudtune_trainer.heads import HEADS, Head
from cloudtune_trainer.problems import TrainingProblem
from cloudtune_trainer.quantization import quantize, round_weights
from cloudtune_trainer.rendering import Dialogue, Rendered, templated, text_start
from cloudtune_trainer.run_spec import TASKS, ModelSource
from cloudtune_trainer.sampling import check_settings
from cloudtune_trainer.scoring import log_probabilities
from cloudtune_trainer.shared_prefix import SharedPrefix, can_share, common_prefix, padded
from cloudtune_trainer.streaming import TokenStreamer
from cloudtune_trainer.token_spans import SpanEncoder
from cloudtune_trainer.tuned import check_adapter, read_tuned_or_plain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cloudtune_trainer.scoring import Row

_SCORED_AT_A_TIME = 64
_WINDOW = 4
_TOKENS = 32 << 10
"""Of a batch, with its answers, so that long prompts need no more memory than short ones."""
Prompt = str | Sequence[Mapping[str, Any]] | Mapping[str, Any]
"""A text, messages, or ``{"messages": ..., "tools": ...}``."""


@dataclass(frozen=True)
class Answer:
    """One answer.

    ``finish_reason``: ``stop`` if the model ended it, ``length`` at ``max_tokens`` or the model's context limit.
    """

    text: str
    finish_reason: Literal["stop", "length"]
    prompt_tokens: int
    completion_tokens: int
    scores: dict[str, float] | None = None
    """Classifiers only: the probability of each label, the most likely first."""


class Model:
    """A loaded model. Calls from several threads are serialized."""

    def __init__(
        self, network: Any, tokenizer: Any, *, continues: bool = False, lock: threading.Lock | None = None,
        adapted: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> None:  # fmt: skip
        """``adapted`` is entered during generation; with ``lock`` several models share one network."""
        self._network = network.eval()
        self._tokenizer = tokenizer
        self._continues = continues
        keep_special_tokens(network)
        self._ends = answer_ends(network, tokenizer)
        self._padding = padding_of(tokenizer, self._ends) or 0
        self._lock = lock or threading.Lock()
        self._adapted = adapted
        self._can_batch: bool | None = None
        self._can_share: bool | None = None

    @classmethod
    def open(
        cls, folder: Path | str, *, base: bool = False, device: str = "auto", trust_remote_code: bool = False
    ) -> Self:
        """Load the tuned model of that folder, or with ``base`` its base model, for comparison.

        ``trust_remote_code`` allows the model's own code to run. The folder itself cannot enable this.
        """
        from cloudtune_trainer.devices import Devices

        folder = Path(folder)
        tuned = read_tuned_or_plain(folder)
        devices = Devices(device, "auto")
        dtype = devices.compute if devices.device.type != "cpu" else torch.float32
        network = load_tuned(folder, tuned, dtype=dtype, base=base, trust_remote_code=trust_remote_code)
        tokenizer = models.load_tokenizer(models.BaseModel(str(folder)))
        return cls(network.to(devices.device), tokenizer, continues=tuned["method"] == "cpt")

    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        max_tokens: int = 128,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int | None = None,
        batch_size: int = 32,
    ) -> Iterator[Answer]:
        """Answers in the order of the prompts. ``temperature`` 0 always picks the most likely token.

        Prompts of similar length are answered together: `_WINDOW` batches are sorted by length. What all prompts begin
        with is computed once.

        A text prompt is a user message; after continued pre-training, it is text to continue. With a seed, the same
        prompts in the same batches have the same answers.
        """
        check_settings(max_tokens=max_tokens, temperature=temperature, top_p=top_p, seed=seed)
        rows = self._read(prompts)
        size = batch_size if len(rows) == 1 or batch_size == 1 or self.can_batch else 1
        beginning = common_prefix(rows) if size > 1 else []
        prefix: SharedPrefix | None = None
        done = 0
        for start in range(0, len(rows), size * _WINDOW):
            numbers = range(start, min(start + size * _WINDOW, len(rows)))
            found: dict[int, Answer] = {}
            for batch in batches_of(sorted(numbers, key=lambda number: len(rows[number])), rows, size, max_tokens):
                with self._alone(None if seed is None else seed + batch[0]):
                    if beginning and prefix is None and self._shares():
                        prefix = SharedPrefix(self._network, beginning)
                    some = [rows[number] for number in batch]
                    answers = self._batch(some, max_tokens, temperature, top_p, prefix=prefix)
                found.update(zip(batch, answers, strict=True))
                while done in found:  # outside the lock: the caller may read them slowly
                    yield found.pop(done)
                    done += 1

    @property
    def can_batch(self) -> bool:
        """Whether prompts have the same answers in a batch as alone. Checked at the first use."""
        if self._can_batch is None:
            with self._alone(None):
                self._can_batch = answers_in_batches(self._network, self._padding)
        return self._can_batch

    def _shares(self) -> bool:
        """Whether prompts can share their beginning. Checked at the first use."""
        if self._can_share is None:
            self._can_share = can_share(self._network, self._padding)
        return self._can_share

    @property
    def _context(self) -> int | None:
        """Tokens that a prompt and its answer can have together; None if the model does not limit them."""
        limit = getattr(self._network.config.get_text_config(), "max_position_embeddings", None)
        if not isinstance(limit, int) or limit < 1:
            return None
        adapter = getattr(self._network, "active_peft_config", None)
        return limit - int(getattr(adapter, "num_virtual_tokens", None) or 0)

    def _read(self, prompts: Sequence[Prompt]) -> list[list[int]]:
        """The tokens of each prompt. Raises ``bad_data`` for prompts that are empty or leave no tokens for an answer.

        The error lists all of them.
        """
        texts = [self._text(prompt) for prompt in prompts]
        rows: list[list[int]] = self._tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []
        if empty := [str(number) for number, row in enumerate(rows, 1) if not row]:
            raise TrainingProblem("bad_data", f"empty prompts: {', '.join(empty)}", "Enter at least one word.")
        if (limit := self._context) is not None:
            long = [f"prompt {number} has {len(row)}" for number, row in enumerate(rows, 1) if len(row) >= limit]
            if long:
                what = f"{', '.join(long)} tokens, and the model's context, answer included, has {limit}"
                raise TrainingProblem("bad_data", what, "Shorten the prompt.")
        return rows

    def stream(
        self, prompt: Prompt, *, max_tokens: int = 128, temperature: float = 0.0,
        top_p: float = 1.0, seed: int | None = None,
    ) -> Iterator[str | Answer]:  # fmt: skip
        """Chunks of an answer's text as the model generates it, then the answer that ``generate`` would return."""
        check_settings(max_tokens=max_tokens, temperature=temperature, top_p=top_p, seed=seed)
        rows = self._read([prompt])
        ear = TokenStreamer(lambda ids: str(self._tokenizer.decode(ids, skip_special_tokens=True)), self._ends)

        def write() -> Answer:
            with self._alone(seed):
                return self._batch(rows, max_tokens, temperature, top_p, ear)[0]

        yield from ear.listen(write)

    def score(self, texts: Sequence[tuple[Prompt | None, str]]) -> Iterator[tuple[float, int]]:
        """For each text, the natural logarithm of its probability after its prompt, and the number of its tokens.

        A text without a prompt follows the token that starts texts, or else the one that ends them. The end of an
        answer is not counted.
        """
        rows = self._scored_rows(texts)
        for first in range(0, len(rows), _SCORED_AT_A_TIME):
            some, batches = rows[first : first + _SCORED_AT_A_TIME], len(rows) > 1 and self.can_batch
            with self._alone(None):
                found = log_probabilities(self._network, some, context=self._context, batches=batches)
            yield from found

    def _scored_rows(self, texts: Sequence[tuple[Prompt | None, str]]) -> list[Row]:
        tokenizer = self._tokenizer
        start = text_start(tokenizer) or tokenizer.bos_token or tokenizer.eos_token or ""
        befores = [start if prompt is None else self._text(prompt) for prompt, _ in texts]
        samples = [Rendered(before + text, ((len(before), len(before) + len(text)),))
                   for before, (_, text) in zip(befores, texts, strict=True)]  # fmt: skip
        return [(ids, *spans[0]) for ids, spans in SpanEncoder(self._tokenizer).encode(samples)]

    @contextmanager
    def _alone(self, seed: int | None) -> Iterator[None]:
        """Exclude other generation, and set the random state."""
        with self._lock, self._adapted(), torch.random.fork_rng(enabled=seed is not None):
            if seed is not None:
                torch.manual_seed(seed)
            yield

    def _text(self, prompt: Prompt) -> str:
        if isinstance(prompt, str) and self._continues:
            return text_start(self._tokenizer) + prompt
        tools: list[dict[str, Any]] | None = None
        turns: Any = prompt
        if isinstance(prompt, Mapping):
            tools, turns = list(prompt["tools"]), prompt["messages"]
        elif isinstance(prompt, str):
            turns = [{"role": "user", "content": prompt}]
        if not isinstance(turns, Sequence) or not all(isinstance(turn, Mapping) for turn in turns):
            raise TrainingProblem("bad_data", "a prompt is a text or a list of messages")
        dialogue = Dialogue([templated(dict(turn)) for turn in turns], tools)
        text = self._rendered(dialogue)
        if tools and text == self._rendered(dialogue._replace(tools=None)):
            raise TrainingProblem("bad_data", "the chat template of this model does not show tools to it",
                                  "Use a model whose template has tools, or rows without tools.")  # fmt: skip
        return text

    def _rendered(self, dialogue: Dialogue) -> str:
        try:
            return str(self._tokenizer.apply_chat_template(
                dialogue.messages, tools=dialogue.tools, tokenize=False, add_generation_prompt=True
            ))  # fmt: skip
        except Exception as error:  # templates can raise any exception
            raise TrainingProblem("bad_data", f"the chat template rejects this prompt: {error}") from error

    def _batch(
        self, rows: Sequence[list[int]], max_tokens: int, temperature: float, top_p: float,
        ear: TokenStreamer | None = None, prefix: SharedPrefix | None = None,
    ) -> list[Answer]:  # fmt: skip
        width = max(map(len, rows))
        if (limit := self._context) is not None and width + max_tokens > limit:  # the context limits the answer
            if len(rows) > 1:  # each prompt has its own limit
                return [self._batch([row], max_tokens, temperature, top_p)[0] for row in rows]
            max_tokens = limit - width
        sampling = {"temperature": temperature, "top_p": top_p, "top_k": 0} if temperature > 0 else {}
        streaming = {"streamer": ear, "stopping_criteria": [ear.has_left]} if ear else {}
        with torch.inference_mode():
            found = answer_tokens(
                self._network, rows, ends=self._ends, padding=self._padding, max_tokens=max_tokens, sampling=sampling,
                prefix=prefix, **streaming,
            )  # fmt: skip
        answers = []
        for prompt, row in zip(rows, found, strict=True):
            ended = row[-1] in self._ends
            words = row[:-1] if ended else row
            text = self._tokenizer.decode(words, skip_special_tokens=True)
            answers.append(Answer(text, "stop" if ended else "length", len(prompt), len(words)))
        return answers


def batches_of(
    numbers: Sequence[int], rows: Sequence[Sequence[int]], size: int, max_tokens: int
) -> Iterator[Sequence[int]]:
    """Batches of rows that are sorted by length: at most ``size`` rows and `_TOKENS` tokens, answers included."""
    first = 0
    for place, number in enumerate(numbers):
        count = place - first + 1
        if count > size or (count > 1 and count * (len(rows[number]) + max_tokens) > _TOKENS):
            yield numbers[first:place]
            first = place
    yield numbers[first:]


def answer_tokens(
    network: Any, prompts: Sequence[Sequence[int]], *, ends: Sequence[int], padding: int, max_tokens: int,
    sampling: Mapping[str, Any], prefix: SharedPrefix | None = None, **options: Any,
) -> list[list[int]]:  # fmt: skip
    """The tokens of each prompt's answer, with the end token if the model ended it within ``max_tokens``.

    ``sampling`` are settings of transformers' `GenerationConfig`; without any, the most likely token is picked. All
    prompts begin with ``prefix``.
    """
    from transformers import GenerationConfig

    rows, mask = padded(prompts, padding, len(prefix.tokens) if prefix else 0)
    if prefix is not None:
        options["past_key_values"] = prefix.repeated(len(prompts))
    config = GenerationConfig(
        do_sample=bool(sampling), max_new_tokens=max_tokens, pad_token_id=padding, eos_token_id=list(ends) or None,
        **sampling,
    )  # fmt: skip
    device = network.get_input_embeddings().weight.device
    with warnings.catch_warnings():
        # with a prompt adapter, positions follow from the cache
        warnings.filterwarnings("ignore", "Position ids are not supported")
        out = network.generate(
            input_ids=rows.to(device), attention_mask=mask.to(device), generation_config=config, **options
        )
    found = []
    for row in out[:, rows.shape[1] :].tolist():
        end = next((place for place, token in enumerate(row) if token in ends), None)
        found.append(row if end is None else row[: end + 1])
    return found


def load_tuned(
    folder: Path, tuned: dict[str, Any], *, dtype: torch.dtype, base: bool = False, trust_remote_code: bool = False,
    for_merging: bool = False,
) -> Any:  # fmt: skip
    """The network, with its adapter if it has one.

    ``for_merging``: a base model that was quantized has its rounded weights, in ``dtype``.
    """
    head = _head_of(folder, tuned)
    if (is_whole_model(tuned["adapter"]) or tuned["merged"]) and not base:
        return models.load_model(models.BaseModel(str(folder), None, trust_remote_code), dtype=dtype, head=head)
    origin = base_of(folder, tuned, trust_remote_code=trust_remote_code)
    new_head = set[str]() if head is not None and head.starts_random else None
    network = models.load_model(origin, dtype=dtype, head=head, new_head=new_head)
    if base:
        return network
    check_adapter(folder)
    if tuned["adapter"] in ADAPTERS and ADAPTERS[tuned["adapter"]].quantized:
        (round_weights if for_merging else quantize)(network)
    with models.found(models.BaseModel(str(folder))):
        return models.load_adapter(network, folder)


def _head_of(folder: Path, tuned: dict[str, Any]) -> Head | None:
    task = TASKS.get(tuned["method"], "")
    if task not in HEADS:
        return None
    padding = 0
    if HEADS[task].reads == "text":
        padding = padding_of(models.load_tokenizer(models.BaseModel(str(folder)))) or 0
    labels = tuple(tuned.get("labels", ()))
    return Head(task, padding, labels, tuned.get("problem") or "single_label")


def base_of(folder: Path, tuned: dict[str, Any], *, trust_remote_code: bool = False) -> models.BaseModel:
    """The base model of a tuned model: the folder that was loaded, else the source itself.

    Raises ``model_not_found``, and ``base_changed`` if the adapter was trained on a different base model.
    """
    source, base_folder = ModelSource(**tuned["base"]), folder / tuned["base_folder"]
    if source.source in ("folder", "config") and (base_folder / "config.json").is_file():
        check_base(tuned, base_folder)
        return models.BaseModel(str(base_folder), None, trust_remote_code)
    if source.source == "config":  # rebuilding needs the job's rows, and writes to a path from the model
        raise TrainingProblem(
            "model_not_found",
            f"the base model in {base_folder} is gone",
            "Run the job again, or keep its run folder. An export of the adapter takes the base model along.",
        )
    base = models.locate(source, scratch=base_folder, trust_remote_code=trust_remote_code)
    if source.source != "hub":
        check_base(tuned, Path(base.path))
    return base
