"""Text embedding: equality with the formulas, independence of the division of a step, and the files."""

from __future__ import annotations

import importlib.util
import json
import random
import shutil
from typing import TYPE_CHECKING, Any

import pytest
import torch
import torch.nn.functional as F

from cloudtune_trainer.embedding_spec import Embedding
from cloudtune_trainer.export import export
from cloudtune_trainer.pooling_files import read_pooling
from cloudtune_trainer.problems import TrainingProblem
from cloudtune_trainer.run_spec import DataFiles, Hyperparameters, ModelSource, RunSpec
from cloudtune_trainer.tasks.embedding import TextEmbedding
from cloudtune_trainer.tasks.embedding_losses import Candidates, Texts
from cloudtune_trainer.tasks.embedding_samples import ANCHOR, NEGATIVE, POSITIVE
from cloudtune_trainer.tasks.table import open_model

from .conftest import Rows, Runs, check_gradients, events, metrics, same_bits, weights, write_encoder

if TYPE_CHECKING:
    from pathlib import Path

LOSSES = ("multiple_negatives_ranking", "triplet", "cosent", "cosine_similarity")
FULL = {"type": "full"}


def contrastive(count: int, *, seed: int = 0, negatives: int = 2) -> Rows:
    """Questions about sums, with the right answer and wrong ones."""
    rng = random.Random(seed)
    pairs = rng.sample([(a, b) for a in range(30) for b in range(30)], count)
    return [
        {
            "anchor": f"What is {a} plus {b}?", "positive": f"{a} plus {b} is {a + b}.",
            "negatives": [f"{a} plus {b} is {a + b + 1 + more}." for more in range(rng.randint(1, negatives))],
        }
        for a, b in pairs
    ]  # fmt: skip


def similarity(count: int, *, seed: int = 0) -> Rows:
    rng = random.Random(seed)
    return [
        {"sentence1": f"{a} follows {b}.", "sentence2": f"{a} follows {c}.", "score": round(1 - abs(b - c) / 30, 1)}
        for a, b, c in [[rng.randrange(30) for _ in range(3)] for _ in range(count)]
    ]


def rows_of(loss: str, count: int, **more: Any) -> Rows:
    return contrastive(count, **more) if loss in LOSSES[:2] else similarity(count, **more)


def spec_of(loss: str, **more: Any) -> dict[str, Any]:
    hyper = {"packing": False, "max_steps": 4, "batch_size": 6, "dropout": 0.0, "learning_rate": 1e-3}
    more["hyperparameters"] = hyper | more.get("hyperparameters", {})
    return {"method": "embedding", "adapter": FULL, "embedding": {"loss": loss}, **more}


@pytest.fixture
def encoder(tmp_path: Path, tiny_model: Path) -> Path:
    """One whose vectors differ between texts."""
    off = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    return write_encoder(tmp_path / "bert", tiny_model, initializer_range=0.3, **off)


def opened(folder: Path, loss: str, pooling: str = "mean", **more: Any) -> tuple[TextEmbedding, Any, Any]:
    from transformers import AutoModel, AutoTokenizer

    spec = RunSpec(
        version=2, model=ModelSource(source="folder", path=str(folder)), data=DataFiles(train="t"),
        method="embedding", embedding=Embedding(loss=loss, pooling=pooling, **more),  # type: ignore[arg-type]
        hyperparameters=Hyperparameters(max_length=64),
    )  # fmt: skip
    # in fp64, since the temperature multiplies rounding errors
    return TextEmbedding(spec), AutoModel.from_pretrained(folder).double().eval(), AutoTokenizer.from_pretrained(folder)


def vectors_of(model: Any, tokenizer: Any, texts: list[str], pooling: str = "mean") -> torch.Tensor:
    """Each text alone, without padding."""
    found = []
    for text in texts:
        hidden = model(**tokenizer(text, return_tensors="pt", return_token_type_ids=False)).last_hidden_state[0]
        found.append({"mean": hidden.mean(0), "cls": hidden[0], "last": hidden[-1]}[pooling])
    return torch.stack(found)


def naive(loss: str, rows: Rows, embed: Any) -> torch.Tensor:
    """The losses from their formulas, as a mean over rows."""
    cos = F.cosine_similarity
    if loss in ("cosent", "cosine_similarity"):
        one, other = (embed([row[name] for row in rows]) for name in ("sentence1", "sentence2"))
        cosines, scores = cos(one, other), torch.tensor([row["score"] for row in rows]).to(one)
        if loss == "cosine_similarity":
            return ((cosines - scores) ** 2).mean()
        terms = [
            torch.exp((cosines[i] - cosines[j]) / 0.05)
            for i in range(len(rows)) for j in range(len(rows)) if scores[i] < scores[j]
        ]  # fmt: skip
        return torch.log(1 + torch.stack(terms).sum())
    anchors, positives = (embed([row[name] for row in rows]) for name in ("anchor", "positive"))
    negatives = [embed(row["negatives"]) for row in rows]
    if loss == "triplet":
        each = [
            torch.relu(0.2 - cos(anchors[i], positives[i], dim=0) + cos(anchors[i][None], negatives[i])).mean()
            for i in range(len(rows))
        ]
        return torch.stack(each).mean()
    candidates = torch.cat([positives, *negatives])
    scores = torch.stack([cos(anchor[None], candidates) for anchor in anchors]) / 0.05
    return -torch.log_softmax(scores, 1).diagonal().mean()


@pytest.mark.parametrize(
    ("loss", "pooling"), [*((loss, "mean") for loss in LOSSES), (LOSSES[0], "cls"), (LOSSES[0], "last")]
)
def test_loss_and_gradients_equal_the_formula(encoder: Path, loss: str, pooling: str) -> None:
    task, model, tokenizer = opened(encoder, loss, pooling)
    rows = rows_of(loss, 6)
    expected = naive(loss, rows, lambda texts: vectors_of(model, tokenizer, texts, pooling))
    expected.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    batch = task.collate(task.encode(rows, tokenizer), range(len(rows)))
    found = task.forward(model, batch)
    assert found.count == len(rows)
    (found.loss / found.count).backward()
    assert float(found.loss.detach() / found.count) == pytest.approx(float(expected.detach()), rel=1e-5)
    check_gradients(model, gradients)


@pytest.mark.parametrize("loss", LOSSES)
def test_a_step_does_not_depend_on_its_parts(runs: Runs, encoder: Path, loss: str) -> None:
    runs.base = encoder
    found = []
    for parts in (1, 4):
        spec = spec_of(loss, hyperparameters={"gradient_accumulation_steps": parts, "max_steps": 2})
        run = runs.make(
            f"parts{parts}",
            rows=rows_of(loss, 12),
            held_out=rows_of(loss, 7, seed=1) if loss in LOSSES[:2] else similarity(7),
            **spec,
        )
        assert runs.train(run) == "succeeded"
        names = ("loss", "grad_norm")
        found.append([[line["values"][name] for name in names] for line in metrics(run)])
        found[-1].append([line["values"]["loss"] for line in metrics(run, "validation")])
    for other in found[1:]:
        for one, same in zip(found[0], other, strict=True):
            assert same == pytest.approx(one, rel=2e-5)
    assert found[0][0][1] > 0


def test_a_text_that_occurs_twice_is_no_negative_of_its_anchor(encoder: Path) -> None:
    task, model, tokenizer = opened(encoder, "multiple_negatives_ranking")
    rows = contrastive(4)
    twice = [*rows, {**rows[0], "negatives": rows[1]["negatives"]}, {"anchor": rows[2]["anchor"], "positive": "4."}]

    def losses(rows: Rows) -> list[float]:
        samples = task.encode(rows, tokenizer)
        task.set_step(task.row_values_of(model, task.collate(samples, range(len(rows)))), torch.device("cpu"))
        return [float(task.forward(model, task.collate(samples, [row])).loss) for row in range(len(rows))]

    with torch.no_grad():
        found = losses(twice)
        extra = vectors_of(model, tokenizer, rows[1]["negatives"]), vectors_of(model, tokenizer, ["4."])
        candidates = torch.cat([
            vectors_of(model, tokenizer, [text for row in rows for text in (row["positive"], *row["negatives"])]),
            extra[0],
        ])  # fmt: skip
        anchor, positive = (vectors_of(model, tokenizer, [rows[0][name]]) for name in ("anchor", "positive"))
        cosines = torch.cat([F.cosine_similarity(anchor, positive), F.cosine_similarity(anchor, candidates[1:]),
                             F.cosine_similarity(anchor, extra[1])]) / 0.05  # fmt: skip
    assert found[0] == pytest.approx(float(-torch.log_softmax(cosines, 0)[0]), rel=1e-5)
    assert found[0] == pytest.approx(found[4], rel=1e-6)


def random_texts(about: list[tuple[int, int, int]], size: int) -> Texts:
    vectors = torch.randn(len(about), size, generator=torch.Generator().manual_seed(0))
    return Texts(torch.tensor(about), torch.zeros(len(about)), F.normalize(vectors, dim=1))


def test_a_text_of_an_anchor_is_its_negative_in_no_row() -> None:
    texts = random_texts([
        (0, ANCHOR, 0), (0, POSITIVE, 1), (1, ANCHOR, 0), (1, POSITIVE, 2), (2, ANCHOR, 3), (2, POSITIVE, 2),
        (3, ANCHOR, 4), (3, POSITIVE, 5), (3, NEGATIVE, 2), (3, NEGATIVE, 0),
    ], 4)  # fmt: skip
    compared = Candidates.of(texts, torch.arange(4)).cosines.isfinite()
    assert [row.nonzero()[:, 0].tolist() for row in compared] == [[0, 3], [1, 3], [0, 2, 3, 5], [0, 1, 2, 3, 4, 5]]


def test_cosines_keep_their_precision_in_autocast() -> None:
    texts = random_texts([(row, role, 2 * row + role) for row in range(8) for role in (ANCHOR, POSITIVE)], 64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = Candidates.of(texts, torch.arange(8)).cosines
    assert torch.equal(found, Candidates.of(texts, torch.arange(8)).cosines)


def test_recall_and_reciprocal_rank_are_of_the_whole_split(runs: Runs, encoder: Path) -> None:
    runs.base = encoder
    held_out = contrastive(8, seed=3)
    run = runs.make(rows=contrastive(6), held_out=held_out, **spec_of("triplet", hyperparameters={"max_steps": 1}))
    assert runs.train(run) == "succeeded"
    (values,) = [line["values"] for line in metrics(run, "validation")]
    model = open_model(run.model)
    texts = list(dict.fromkeys(text for row in held_out for text in (row["positive"], *row["negatives"])))
    anchors, vectors = (
        torch.tensor([found.vector for found in model.predict(asked)])
        for asked in ([row["anchor"] for row in held_out], texts)
    )
    order = (anchors @ vectors.T).argsort(1, descending=True).tolist()
    ranks = [[texts[i] for i in row].index(given["positive"]) for row, given in zip(order, held_out, strict=True)]
    for k in (1, 10):
        assert values[f"recall@{k}"] == pytest.approx(sum(rank < k for rank in ranks) / len(ranks))
    assert values["mrr@10"] == pytest.approx(sum(1 / (rank + 1) for rank in ranks if rank < 10) / len(ranks))


def test_similar_sentences_are_learned_and_predicted(runs: Runs, encoder: Path) -> None:
    runs.base = encoder
    hyper = {"max_steps": 30, "batch_size": 24, "learning_rate": 3e-3}
    run = runs.make(rows=similarity(48), held_out=similarity(48), **spec_of("cosent", hyperparameters=hyper))
    assert runs.train(run) == "succeeded"
    measured = [line["values"]["spearman"] for line in metrics(run, "validation")]
    assert measured[-1] > max(0.8, measured[0])
    row = similarity(1)[0]
    pair, *single = open_model(run.model).predict([row, row["sentence1"], row["sentence2"]])
    one, other = (torch.tensor(found.vector) for found in single)
    assert pair.value == pytest.approx(float(one @ other), abs=1e-5)
    assert float(one.norm()) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("adapter", ["full", "lora"])
def test_a_merged_export_gives_the_vectors_in_plain_transformers(
    runs: Runs, encoder: Path, tmp_path: Path, adapter: str
) -> None:
    from transformers import AutoModel, AutoTokenizer

    runs.base = encoder
    run = runs.make(rows=contrastive(6), **spec_of(LOSSES[0], adapter={"type": adapter}))
    assert runs.train(run) == "succeeded"
    export(run.model, to := tmp_path / "merged", merged=True)
    text = "What is 3 plus 4?"
    model, report = AutoModel.from_pretrained(to, add_pooling_layer=False, output_loading_info=True)
    assert not any(report.values())
    model, tokenizer = model.eval(), AutoTokenizer.from_pretrained(to)
    (found,) = open_model(to).predict([text])
    expected = F.normalize(vectors_of(model, tokenizer, [text]))[0].tolist()
    assert found.vector == pytest.approx(expected, abs=1e-5)
    modules = read_json_list(to / "modules.json")
    assert [module["type"].rpartition(".")[2] for module in modules] == ["Transformer", "Pooling", "Normalize"]
    assert all((to / module["path"]).is_dir() for module in modules)
    if importlib.util.find_spec("sentence_transformers"):  # no dependency of the tests
        library = importlib.import_module("sentence_transformers")
        assert library.SentenceTransformer(str(to)).encode(text).tolist() == pytest.approx(expected, abs=1e-5)


def read_json_list(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_the_pooling_is_that_of_the_base_model(
    runs: Runs, encoder: Path, tiny_model: Path, tmp_path: Path, family: str
) -> None:
    runs.base = encoder if family == "bert" else tiny_model
    spec = spec_of(LOSSES[0], hyperparameters={"max_steps": 1})
    first = runs.make("first", rows=contrastive(4), **spec)
    assert runs.train(first) == "succeeded"
    usual = "mean" if family == "bert" else "last"
    assert f"pooling: {usual}" in " ".join(event["message"] for event in events(first, "message"))
    assert read_pooling(first.model / "1_Pooling/config.json") == usual
    (first.model / "1_Pooling/config.json").write_text('{"pooling_mode": "cls"}')
    runs.base = first.model
    second = runs.make("second", rows=contrastive(4), **spec)
    assert runs.train(second) == "succeeded"
    assert read_pooling(second.model / "1_Pooling/config.json") == "cls"


def test_a_resumed_run_makes_the_same_steps(runs: Runs, encoder: Path) -> None:
    runs.base = encoder
    spec = spec_of(LOSSES[0], hyperparameters={"gradient_accumulation_steps": 2, "dropout": 0.1})
    spec["checkpoints"] = {"every": 1}
    whole, broken = (runs.make(name, rows=contrastive(12), **spec) for name in ("whole", "broken"))
    assert runs.train(whole) == "succeeded"
    assert runs.train(broken, stop_after=2) == "interrupted"
    assert runs.train(broken) == "succeeded"
    assert same_bits(weights(whole.model), weights(broken.model))


@pytest.mark.parametrize(("loss", "rows", "message"), [
    ("triplet", [{"anchor": "a", "positive": "b"}], "row 1: it has no negatives"),
    ("multiple_negatives_ranking", [{"text": "a"}], 'row 1: it requires "anchor" and "positive"'),
    ("cosine_similarity", [{"sentence1": "a", "sentence2": "b", "score": 4.5}], "row 1: the score 4.5 is no cosine"),
    ("cosent", [{"anchor": "a", "positive": "b"}], 'requires "sentence1" and "sentence2" and "score"'),
])  # fmt: skip
def test_rows_that_the_loss_cannot_use_are_refused(
    runs: Runs, encoder: Path, loss: str, rows: Rows, message: str
) -> None:
    runs.base = encoder
    with pytest.raises(TrainingProblem) as refused:
        runs.train(runs.make(rows=rows, **spec_of(loss)))
    assert message in refused.value.message


@pytest.mark.parametrize("pooling", ["auto", "cls"])
@pytest.mark.parametrize(("modules", "message"), [
    ([{"type": "sentence_transformers.models.Pooling"}, {"type": "sentence_transformers.models.Dense"}],
     "the module Dense is not supported"),
    ({"type": "Dense"}, "it is not a list of modules"),
])  # fmt: skip
def test_a_base_model_with_further_modules_is_refused(
    runs: Runs, encoder: Path, tmp_path: Path, modules: Any, message: str, pooling: str
) -> None:
    runs.base = shutil.copytree(encoder, tmp_path / "base")
    (runs.base / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    spec = spec_of(LOSSES[0])
    spec["embedding"] |= {"pooling": pooling}
    with pytest.raises(TrainingProblem, match=message):
        runs.train(runs.make(rows=contrastive(2), **spec))


def test_an_encoder_decoder_is_refused(runs: Runs, tiny_model: Path, tmp_path: Path) -> None:
    runs.base = write_encoder(tmp_path / "t5", tiny_model, "t5")
    with pytest.raises(TrainingProblem, match="a t5 model cannot be used for text embedding"):
        runs.train(runs.make(rows=contrastive(2), **spec_of(LOSSES[0])))
