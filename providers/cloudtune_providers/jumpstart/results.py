"""The results of a job: the metrics in its log, its model, requests to an endpoint and its responses. Pure."""

from __future__ import annotations

import ast
import json
import re
from typing import TYPE_CHECKING, Any

from cloudtune.errors import InvalidResponse
from cloudtune.state import Generation, reported_number
from cloudtune_providers.aws.streams import REASONS
from cloudtune_providers.aws.training_log import Figures

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cloudtune.optional import GenerateOptions

_FIELD = re.compile(r"\{(instruction|context)\}")
_TRAIN = {"loss": "loss", "grad_norm": "grad_norm", "learning_rate": "learning_rate"}
_VALIDATION = {
    "eval_loss": "loss",
    "eval_ppl": "perplexity",
    "eval_epoch_loss": "loss",
    "eval_accuracy": "token_accuracy",
}


def figures(line: str) -> Figures | None:
    """Parse a line of Hugging Face's Trainer: ``{'loss': 1.9, 'learning_rate': 0.0002, 'epoch': 0.5}``.

    It has no step: reports are counted. Other lines of the log have no metrics.
    """
    start, end = line.find("{"), line.rfind("}")
    if start < 0 or end < start or ("loss" not in line):
        return None
    try:
        values = ast.literal_eval(line[start : end + 1])
    except (TypeError, ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    if not isinstance(values, dict):
        return None
    epoch = reported_number(values.get("epoch"))
    if (train := _named(values, _TRAIN)) and "loss" in train:
        return Figures(values=train, epoch=epoch)
    if held := _named(values, _VALIDATION):
        return Figures(values=held, epoch=epoch, split="validation", step=None)
    return None


def _named(values: Mapping[Any, Any], names: Mapping[str, str]) -> dict[str, float]:
    found = {}
    for name, metric in names.items():
        if (number := reported_number(values.get(name))) is not None:
            found[metric] = number
    return found


def asking(
    messages: Sequence[Mapping[str, Any]], options: GenerateOptions, template: Mapping[str, str] | None
) -> dict[str, Any]:
    """Return the body for an endpoint: a conversation, or the prompt from the template used in training."""
    drawn = {"temperature": options.temperature, "top_p": options.top_p}
    if options.seed is not None:
        drawn["seed"] = options.seed
    if template is None:
        return {"messages": [dict(message) for message in messages], "max_tokens": options.max_tokens, **drawn}
    said = [str(message.get("content") or "") for message in messages if message.get("role") in ("system", "user")]
    fields = {"instruction": "\n".join(said), "context": ""}
    # In one pass, so that a user's text is never interpreted as a field.
    prompt = _FIELD.sub(lambda found: fields[found[1]], str(template.get("prompt", "{instruction}")))
    given = {"max_new_tokens": options.max_tokens, "do_sample": options.temperature > 0, "details": True, **drawn}
    return {"inputs": prompt, "parameters": given}


def answer(content: bytes, endpoint: str) -> Generation:
    """The endpoint's answer, in any of the usual formats."""
    try:
        document = json.loads(content)
    except ValueError as error:
        raise InvalidResponse(f"{endpoint} returned invalid JSON: {content[:200]!r}") from error
    if isinstance(document, list) and document:
        document = document[0]
    if isinstance(document, dict) and document.get("choices"):
        choice, usage = document["choices"][0], document.get("usage") or {}
        return Generation(
            text=str((choice.get("message") or {}).get("content") or choice.get("text") or ""), model=endpoint,
            finish_reason=str(choice.get("finish_reason") or ""), prompt_tokens=usage.get("prompt_tokens"),
            completion_tokens=usage.get("completion_tokens"),
        )  # fmt: skip
    if isinstance(document, dict) and "generated_text" in document:
        details = document.get("details") or {}
        reason = REASONS.get(str(details.get("finish_reason")), "")
        return Generation(
            text=str(document["generated_text"]), model=endpoint, completion_tokens=details.get("generated_tokens"),
            finish_reason=reason or str(details.get("finish_reason") or ""),
        )  # fmt: skip
    raise InvalidResponse(f"{endpoint} returned an unknown response format: {content[:200]!r}")
