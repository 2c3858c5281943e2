"""Models of speech: the losses of transformers' own forward passes, rows that do not fit, and learning."""

from __future__ import annotations

import json
import shutil
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from cloudtune_trainer import models
from cloudtune_trainer.problems import TrainingProblem
from cloudtune_trainer.processors import load_processor
from cloudtune_trainer.run_spec import Adapter, DataFiles, ModelSource, RunSpec
from cloudtune_trainer.tasks.edits import distance, edits
from cloudtune_trainer.tasks.table import open_model, task_for
from cloudtune_trainer.tiny_speech import write_speech_model

from .conftest import Runs, events, metrics

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import Rows

soundfile = pytest.importorskip("soundfile")
pytest.importorskip("soxr")
RATE = 16_000
TONES = {"a": 300, "b": 900, "c": 2700}
SMALL: dict[str, dict[str, Any]] = {
    "wav2vec2": {"hidden_size": 32, "num_attention_heads": 2, "conv_dim": [32, 32, 32, 32], "num_hidden_layers": 1,
                 "num_conv_pos_embedding_groups": 2},
    "whisper": {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "max_source_positions": 50},
}  # fmt: skip


def spoken(word: str, chance: np.random.Generator) -> np.ndarray[Any, Any]:
    """A tone for each letter, with a pause after it and with noise."""
    time = np.arange(1600) / RATE
    parts = [np.concatenate([np.sin(2 * np.pi * TONES[letter] * time), np.zeros(480)]) for letter in word]
    sound = 0.5 * np.concatenate(parts)
    return sound + chance.normal(0, 0.01, len(sound))


def write_rows(folder: Path, count: int, seed: int) -> Rows:
    chance = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(count):
        word = "".join(chance.choice(list(TONES), chance.integers(2, 5)))
        path = folder / f"{seed}-{number}.wav"
        soundfile.write(path, spoken(word, chance), RATE)
        rows.append({"audio": str(path), "transcript": word})
    return rows


@pytest.fixture(scope="module", params=list(SMALL))
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    sizes = {"model_type": request.param, **SMALL[request.param]}
    return write_speech_model(tmp_path_factory.mktemp(request.param), vocab_texts=["abc"], model=sizes)


def spec_of(base: Path, adapter: str) -> RunSpec:
    return RunSpec(
        version=2, model=ModelSource(source="folder", path=str(base)), data=DataFiles(train="t"),
        method="speech_recognition", adapter=Adapter(type=adapter),  # type: ignore[arg-type]
    )  # fmt: skip


@pytest.mark.parametrize("adapter", ["full", "lora"])
def test_loss_and_gradient_are_those_of_transformers(base: Path, tmp_path: Path, adapter: str) -> None:
    spec, place = spec_of(base, adapter), models.BaseModel(str(base))
    rows = write_rows(tmp_path, 4, seed=0)
    task, processor = task_for(spec), load_processor(place, "audio")
    network = task.load_model(place, processor, lambda: rows, dtype=torch.float32, weights=None, dropout=0.0)
    model = models.make_trainable(network, spec, place, None, task.peft_task_type)
    model.eval()
    batch = task.collate(task.encode(rows, processor), range(4))
    ours = task.forward(model, batch)
    ours.loss.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    inputs = {name: value for name, value in batch.inputs.items() if name != "sizes"}
    theirs = model(**inputs, labels=batch.labels).loss
    if network.config.model_type == "whisper":  # the mean over the tokens; that of CTC is a sum
        theirs = theirs * batch.count
    theirs.backward()
    torch.testing.assert_close(ours.loss, theirs, rtol=1e-4, atol=1e-4)
    assert gradients
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-3, atol=1e-4, msg=name)


@pytest.mark.parametrize(("family", "fits"), [("hubert", True), ("wav2vec2-bert", False)])
def test_models_that_read_no_samples_are_refused(tmp_path: Path, family: str, fits: bool) -> None:
    from transformers import AutoConfig, AutoModel, SeamlessM4TFeatureExtractor, Wav2Vec2BertProcessor

    place = write_speech_model(tmp_path / "base", vocab_texts=["abc"], model=SMALL["wav2vec2"])
    processor = load_processor(models.BaseModel(str(place)), "audio")
    sizes = {**SMALL["wav2vec2"], "intermediate_size": 32, "conv_stride": [5, 4, 4, 4], "conv_kernel": [10, 8, 8, 4]}
    config = AutoConfig.for_model(family, **sizes, vocab_size=6, num_conv_pos_embeddings=4, pad_token_id=0)
    if not fits:
        processor = Wav2Vec2BertProcessor(SeamlessM4TFeatureExtractor(), processor.tokenizer)
    AutoModel.from_config(config).save_pretrained(tmp_path / "other")
    processor.save_pretrained(tmp_path / "other")
    other = models.BaseModel(str(tmp_path / "other"))
    task, rows = task_for(spec_of(tmp_path / "other", "full")), write_rows(tmp_path, 2, seed=0)
    with nullcontext() if fits else pytest.raises(TrainingProblem, match="a wav2vec2-bert model cannot be used"):
        task.load_model(
            other, load_processor(other, "audio"), lambda: rows, dtype=torch.float32, weights=None, dropout=0.0
        )


def test_rows_that_do_not_fit_are_left_out_and_named(base: Path, tmp_path: Path) -> None:
    place = models.BaseModel(str(base))
    rows = write_rows(tmp_path, 3, seed=0)
    soundfile.write(tmp_path / "short.wav", np.zeros(100), RATE)
    soundfile.write(tmp_path / "long.wav", np.zeros(3 * RATE), RATE)
    rows += [
        {"audio": str(tmp_path / "short.wav"), "transcript": "a"},
        {"audio": str(tmp_path / "long.wav"), "transcript": "ab"},
        {"audio": rows[0]["audio"], "transcript": "cba" * 60},
        {"audio": rows[0]["audio"], "transcript": "aж"},
    ]
    task, processor = task_for(spec_of(base, "full")), load_processor(place, "audio")
    network = task.load_model(place, processor, lambda: rows, dtype=torch.float32, weights=None, dropout=0.0)
    samples = task.encode(rows, processor)
    reasons = {kind.removeprefix("left out: "): numbers for kind, numbers in samples.cuts.unshown.items()}
    expected = {
        "whisper": {
            "the recording is shorter than 25 ms": [4], "the recording is longer than the window of the model": [5],
            "the transcript has more than 64 tokens": [6],
        },
        "wav2vec2": {
            "the recording is shorter than 25 ms": [4],
            "the transcript is longer than the frames of the recording": [6],
            "the transcript has characters that the model does not know": [7],
        },
    }  # fmt: skip
    assert reasons == expected[network.config.model_type]
    assert len(samples) == 7 - len(reasons)
    with pytest.raises(TrainingProblem, match="no row is left to train on: 1 rows are left out: the recording is sho"):
        task.encode(rows[3:4], processor)


def test_a_trained_model_reads_new_recordings_and_an_untrained_one_does_not(tmp_path: Path) -> None:
    base = write_speech_model(tmp_path / "base", vocab_texts=["abc"], model=SMALL["wav2vec2"])
    rows, held_out = write_rows(tmp_path / "rows", 96, seed=1), write_rows(tmp_path / "rows", 16, seed=2)
    runs, found = Runs(tmp_path / "runs", base), {}
    for name, rate, epochs in (("trained", 5e-3, 6), ("control", 1e-9, 1)):
        hyper = {"epochs": epochs, "batch_size": 8, "learning_rate": rate, "packing": False, "dropout": 0.0}
        run = runs.make(name, rows=rows, held_out=held_out, method="speech_recognition", adapter={"type": "full"},
                        hyperparameters=hyper)  # fmt: skip
        assert runs.train(run) == "succeeded"
        assert not events(run, "warning")
        found[name] = min(one["values"]["cer"] for one in metrics(run, "validation"))
    assert found["trained"] < 0.2
    assert found["control"] > 0.8
    model = open_model(tmp_path / "runs" / "trained" / "model")
    texts = [one.text for one in model.predict([row["audio"] for row in held_out])]
    wrong = sum(distance(text, row["transcript"]) for text, row in zip(texts, held_out, strict=True))
    assert wrong / sum(len(row["transcript"]) for row in held_out) == pytest.approx(found["trained"])
    other = next(row for row, text in zip(held_out, texts, strict=True) if text != texts[0])
    shutil.copyfile(other["audio"], held_out[0]["audio"])  # the file has changed since
    (changed,), (expected,) = model.predict([held_out[0]["audio"]]), model.predict([other["audio"]])
    assert changed.text == expected.text


@pytest.mark.parametrize("adapter", ["lora", "full"])
def test_whisper_trains_and_writes(tmp_path: Path, adapter: str) -> None:
    sizes = {"model_type": "whisper", **SMALL["whisper"]}
    base = write_speech_model(tmp_path / "base", vocab_texts=["abc"], model=sizes)
    rows, runs = write_rows(tmp_path / "rows", 8, seed=1), Runs(tmp_path / "runs", base)
    run = runs.make(rows=rows, held_out=rows, method="speech_recognition", adapter={"type": adapter},
                    hyperparameters={"max_steps": 3, "packing": False})  # fmt: skip
    assert runs.train(run) == "succeeded"
    assert "token_accuracy" in metrics(run, "validation")[0]["values"]
    (answer,) = open_model(run.model).predict([rows[0]["audio"]])
    assert isinstance(answer.text, str)
    assert not events(run, "warning")


def write_multilingual(folder: Path) -> Path:
    """A tiny Whisper with the special tokens of the multilingual ones, in their order."""
    from transformers import AutoModelForSpeechSeq2Seq, WhisperTokenizer
    from transformers.models.whisper.tokenization_whisper import LANGUAGES

    sizes = {"model_type": "whisper", **SMALL["whisper"]}
    place = models.BaseModel(str(write_speech_model(folder / "plain", vocab_texts=["abc"], model=sizes)))
    processor = load_processor(place, "audio")
    letters = {token: number for token, number in processor.tokenizer.get_vocab().items() if not token.startswith("<|")}
    tasks = ("translate", "transcribe", "startoflm", "startofprev", "nospeech", "notimestamps", "padding")
    tokenizer = WhisperTokenizer(vocab={token: number for number, token in enumerate(letters)}, merges=[])
    names = [f"<|{name}|>" for name in ("startoftranscript", *LANGUAGES, *tasks)]
    tokenizer.add_special_tokens({"additional_special_tokens": names, "pad_token": names[-1]})
    ids = dict(zip(names, tokenizer.convert_tokens_to_ids(names), strict=True))
    network = AutoModelForSpeechSeq2Seq.from_pretrained(place.path)
    network.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    network.config.decoder_start_token_id, network.config.pad_token_id = ids[names[0]], ids[names[-1]]
    settings = network.generation_config
    settings._from_model_config = False  # else more keys are not read
    settings.decoder_start_token_id, settings.pad_token_id = ids[names[0]], ids[names[-1]]
    settings.is_multilingual, settings.no_timestamps_token_id = True, ids["<|notimestamps|>"]
    settings.lang_to_id = {f"<|{name}|>": ids[f"<|{name}|>"] for name in LANGUAGES}
    settings.task_to_id = {name: ids[f"<|{name}|>"] for name in tasks[:2]}
    processor.tokenizer = tokenizer
    network.save_pretrained(folder / "many")
    processor.save_pretrained(folder / "many")
    return folder / "many"


@pytest.mark.parametrize("adapter", ["lora", "full"])
def test_a_multilingual_whisper_writes_in_the_language_that_it_was_trained_in(tmp_path: Path, adapter: str) -> None:
    base = write_multilingual(tmp_path)
    rows, runs = write_rows(tmp_path / "rows", 8, seed=1), Runs(tmp_path / "runs", base)
    run = runs.make(rows=rows, method="speech_recognition", adapter={"type": adapter},
                    hyperparameters={"max_steps": 2, "packing": False})  # fmt: skip
    assert runs.train(run) == "succeeded"
    (note,) = (text for event in events(run, "message") if "the language is" in (text := event["message"]))
    model = open_model(run.model)

    def detect(*_: Any, **__: Any) -> None:
        raise AssertionError("the language is known")

    network = model.network if adapter == "full" else model.network.get_base_model()
    network.detect_language = detect
    (answer,) = model.predict([rows[0]["audio"]])
    assert isinstance(answer.text, str)
    saved = json.loads((run.model / "generation_config.json").read_text())
    assert f"the language is {saved['language']}," in note


def test_another_rate_and_two_channels_are_heard_as_one(tmp_path: Path) -> None:
    from cloudtune_trainer.recordings import decoded

    sound = spoken("ab", np.random.default_rng(0))
    soundfile.write(tmp_path / "one.wav", sound, RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "two.flac", np.stack([sound, sound], 1), RATE)
    half = np.interp(np.arange(0, len(sound), 2), np.arange(len(sound)), sound)
    soundfile.write(tmp_path / "slow.wav", half, RATE // 2, subtype="FLOAT")
    one, two, slow = (decoded(str(tmp_path / name), RATE) for name in ("one.wav", "two.flac", "slow.wav"))
    assert np.allclose(one, two, atol=1e-3)
    assert len(slow) == pytest.approx(len(one), abs=2)
    assert np.corrcoef(slow[: len(one)], one[: len(slow)])[0, 1] > 0.95
    sound[99] = np.nan
    soundfile.write(tmp_path / "nan.wav", sound, RATE, subtype="FLOAT")
    with pytest.raises(TrainingProblem, match=r"nan\.wav has samples that are not finite numbers"):
        decoded(str(tmp_path / "nan.wav"), RATE)
    (tmp_path / "bad.wav").write_bytes(b"RIFF and no more")
    with pytest.raises(TrainingProblem, match=r"cannot read the recording .*bad\.wav"):
        decoded(str(tmp_path / "bad.wav"), RATE)


def test_edits_are_the_levenshtein_distance() -> None:
    assert distance("kitten", "sitting") == 3
    assert edits("the cat", "a cat sat") == (2, 3, 6, 9)
    assert edits("", "ab") == (1, 1, 2, 2)
