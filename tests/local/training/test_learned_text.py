"""What is learned is the answer and its end, to the character, in any script and with any kind of tokenizer."""

from __future__ import annotations

import random
from typing import Any

import pytest
from tests.local.training.tokenizer_kinds import EXACT, tokenizer_of

from cloudtune_trainer.rendering import set_plain_template
from cloudtune_trainer.samples import encode_records
from cloudtune_trainer.tasks.pairs import encode_pairs

SCRIPTS = {
    "latin": "aeiou xyz.,?",
    "combining": "e\u0301o\u0308n\u0303a\u0302 ",
    "han": "你好世界龘𠮷 ",
    "kana": "ひらがなカタカナ、",
    "hangul": "한국어각 ",
    "arabic": "مرحبا بالعالم ",
    "hebrew": "שָׁלוֹם ",
    "devanagari": "नमस्ते क्षत्रिय ",
    "thai": "สวัสดีที่นี่ ",
    "emoji": "🦙👩‍👩‍👧👍🏽🏳️‍🌈 ",
    "spaces": " \n\t\u00a0\u3000a",
    "control": "\u200b\u200d\ufeffa\x07",
}
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
MARKED = (
    "{% for m in messages %}{% if m.role == 'assistant' %}{{ 'A: ' }}{% generation %}{{ m.content }}"
    "{% endgeneration %}{{ '</s>\n' }}{% else %}{{ 'Q: ' + m.content + '\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'A: ' }}{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'assistant' %}{{ m.content + eos_token }}"
    "{% else %}{{ '[INST]' + m.content + '[/INST]' }}{% endif %}{% endfor %}"
)
TEMPLATES = {"chatml": (CHATML, "<|im_end|>"), "marks": (MARKED, "</s>"), "mistral": (MISTRAL, "</s>")}


def words(script: str, rng: random.Random) -> str:
    """A text in that script that is not all white space."""
    text = "".join(rng.choices(SCRIPTS[script], k=rng.randint(1, 12)))
    return text if text.strip() else text + "x"


def learned(tokenizer: Any, samples: Any, index: int) -> list[str]:
    """Each stretch of text that a sample learns."""
    ids = samples.ids[samples.starts[index] : samples.starts[index + 1]].tolist()
    mask = samples.learn[samples.starts[index] : samples.starts[index + 1]].tolist()
    edges = [i for i in range(len(ids) + 1) if (i > 0 and mask[i - 1]) != (i < len(ids) and mask[i])]
    # what precedes decides how a tokenizer decodes: so the text before is taken off, not decoded apart
    return [
        tokenizer.decode(ids[:end])[len(tokenizer.decode(ids[:begin])) :]
        for begin, end in zip(edges[::2], edges[1::2], strict=True)
    ]


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("kind", [*EXACT, "bytes"])
def test_learned_text_is_each_answer_and_its_end(kind: str, template: str) -> None:
    source, end = TEMPLATES[template]
    tokenizer = tokenizer_of(kind, chat_template=source)
    rng = random.Random(7)
    rows, expected = [], []
    for script in list(SCRIPTS) * 5:
        first, second, third = (words(script, rng) for _ in range(3))
        rows.append({"messages": [
            {"role": "user", "content": third}, {"role": "assistant", "content": first},
            {"role": "user", "content": first}, {"role": "assistant", "content": third, "weight": 0},
            {"role": "user", "content": second}, {"role": "assistant", "content": second},
        ]})  # fmt: skip
        expected.append([first + end, second + end])
    samples = encode_records(rows, tokenizer, loss_on="assistant", max_length=10_000)
    found = [learned(tokenizer, samples, i) for i in range(len(samples))]
    assert found == expected


def test_learned_text_of_pairs_is_each_answer_and_its_end() -> None:
    rng = random.Random(3)
    for kind in ("byte-level BPE", "sentencepiece BPE of Llama 2", "bytes"):
        tokenizer = tokenizer_of(kind, chat_template=CHATML)
        rows, expected = [], []
        for script in SCRIPTS:
            requested, chosen, rejected = (words(script, rng) for _ in range(3))
            rows.append({
                "messages": [{"role": "user", "content": requested}],
                "chosen": [{"role": "assistant", "content": chosen}],
                "rejected": [{"role": "assistant", "content": rejected + "x"}],
            })  # fmt: skip
            expected.append([chosen + "<|im_end|>", rejected + "x<|im_end|>"])
        pairs = encode_pairs(rows, tokenizer, loss_on="assistant", max_length=10_000)
        found = []
        for i in range(len(pairs)):
            sides = [(pairs.ids[a:b].tolist(), pairs.learn[a:b]) for a, b in pairs.sides(i)]
            firsts = [int(mask.argmax()) for _, mask in sides]
            found.append([
                tokenizer.decode(ids)[len(tokenizer.decode(ids[:first])) :]
                for (ids, _), first in zip(sides, firsts, strict=True)
            ])  # fmt: skip
        assert found == expected


def test_learned_tokens_are_the_answer_s_where_decoding_loses_text() -> None:
    tokenizer = tokenizer_of("WordPiece", chat_template=CHATML)
    rng = random.Random(5)
    texts = [words(script, rng) + " three" for script in list(SCRIPTS) * 5]
    rows = [{"messages": [{"role": "user", "content": "one"}, {"role": "assistant", "content": t}]} for t in texts]
    samples = encode_records(rows, tokenizer, loss_on="assistant", max_length=10_000)
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    for i, text in enumerate(texts):
        part = slice(samples.starts[i], samples.starts[i + 1])
        answer = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert samples.ids[part][samples.learn[part]].tolist() == [*answer, end]


@pytest.mark.parametrize("kind", [*EXACT, "bytes"])
def test_the_prompt_is_encoded_as_generation_encodes_it(kind: str) -> None:
    """Also where the tokenizer would join the prompt's last characters and the answer's first into one token."""
    source = CHATML.replace("<|im_start|>assistant\n", "Assistant: ").replace(
        "'<|im_start|>' + m.role + '\n'", "('Assistant: ' if m.role == 'assistant' else 'User: ')"
    )
    tokenizer = tokenizer_of(kind, chat_template=source)
    for answer in ("yes", " yes", "\n\nyes", "  ", "世界"):
        requested = [{"role": "user", "content": "\n one"}]
        prompt = tokenizer.apply_chat_template(requested, add_generation_prompt=True, tokenize=False)
        rows = [{"messages": [*requested, {"role": "assistant", "content": answer}]}]
        samples = encode_records(rows, tokenizer, loss_on="assistant", max_length=1000)
        first = int(samples.learn.argmax())
        assert samples.ids[:first].tolist() == tokenizer(prompt, add_special_tokens=False)["input_ids"]
        assert learned(tokenizer, samples, 0) == [answer + "<|im_end|>"]


def test_white_space_that_a_special_token_takes_is_learned() -> None:
    from tokenizers import AddedToken

    tokenizer = tokenizer_of("byte-level BPE", chat_template=CHATML)
    for token in ("<|im_start|>", "<|im_end|>"):  # as <|end|> and <|assistant|> of Phi-3
        tokenizer.add_tokens([AddedToken(token, lstrip=True, rstrip=True, special=True)], special_tokens=True)
    rows = [{"messages": [{"role": "user", "content": "one"}, {"role": "assistant", "content": " a b \n"}]}]
    samples = encode_records(rows, tokenizer, loss_on="assistant", max_length=1000)
    assert learned(tokenizer, samples, 0) == [" a b \n<|im_end|>"]


@pytest.mark.parametrize("starts", [True, False])
def test_the_plain_template_starts_as_texts_start(starts: bool) -> None:
    tokenizer = tokenizer_of("sentencepiece BPE of Llama 2", chat_template=None, starts=starts)
    set_plain_template(tokenizer)
    dialogue = [{"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}]
    pair = {"messages": dialogue[:1], "chosen": dialogue[1:], "rejected": [{"role": "assistant", "content": "no"}]}
    text = encode_records([{"text": "one"}], tokenizer, loss_on="all", max_length=99).ids
    chat = encode_records([{"messages": dialogue}], tokenizer, loss_on="assistant", max_length=99).ids
    sides = encode_pairs([pair], tokenizer, loss_on="assistant", max_length=99)
    firsts = [text[0], chat[0], *(sides.ids[begin] for begin, _ in sides.sides(0))]
    assert [first == tokenizer.bos_token_id for first in firsts] == [starts] * 4
    assert chat.tolist().count(tokenizer.bos_token_id) == starts


def test_a_template_that_writes_bos_has_one() -> None:
    tokenizer = tokenizer_of("unigram", chat_template=MISTRAL, starts=True)
    assert not set_plain_template(tokenizer)
    rows = [{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}]
    ids = encode_records(rows, tokenizer, loss_on="assistant", max_length=99).ids.tolist()
    assert ids[0] == tokenizer.bos_token_id
    assert ids.count(tokenizer.bos_token_id) == 1


def test_the_plain_template_keeps_several_start_tokens() -> None:
    from tokenizers import processors

    tokenizer = tokenizer_of("unigram", chat_template=None)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|im_start|> <s> $A", special_tokens=[("<|im_start|>", 4), ("<s>", 1)]
    )  # as [gMASK]<sop> of GLM
    set_plain_template(tokenizer)
    rows = [{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}]
    ids = encode_records(rows, tokenizer, loss_on="assistant", max_length=99).ids.tolist()
    assert ids[:2] == [4, 1]
