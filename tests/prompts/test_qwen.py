"""A Qwen in this process: its answers are a function of question and seed, and its troubles have names."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_qwen import write_qwen, write_qwen_vl
from transformers import GenerationConfig

from wanray.errors import ConfigError, InputError
from wanray.prompts.question import CutAnswerError, Question
from wanray.prompts.qwen import QwenExtender
from wanray.prompts.qwen_sampling import Sampling, SeededChoice

QUESTION = Question(text="a cat", system="write more", seed=0)
OTHERS = [
    QUESTION,
    Question(text="", system="write", seed=1, max_tokens=1),
    Question(text="a dog in the rain, " * 5, system="write", seed=2**40, max_tokens=100),
    Question(text="a cat", system="write more", seed=3, max_tokens=4),
]
IMAGE = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
WIDE = np.random.default_rng(1).integers(0, 256, (100, 700, 3), dtype=np.uint8)
NUM_SEEDS = 4


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("qwen")
    write_qwen(folder / "text")
    write_qwen_vl(folder / "vl")
    return folder


@pytest.fixture(scope="module")
def qwen(folders):
    return QwenExtender(str(folders / "text"))


@pytest.fixture(scope="module")
def qwen_vl(folders):
    return QwenExtender(str(folders / "vl"), dtype="float32")


def reborn(extender, seed):
    """`extender` with other random weights."""
    generator = torch.Generator().manual_seed(seed)
    for weights in extender.model.parameters():
        if weights.ndim > 1:
            weights.data.normal_(std=0.3, generator=generator)
    return extender


def alone(extender, questions):
    """What comes of each question asked alone."""
    outcomes = []
    for question in questions:
        try:
            outcomes.append(extender.ask(question))
        except InputError as error:
            outcomes.append(error)
    return outcomes


def shown(outcomes):
    return [(type(outcome), str(outcome)) for outcome in outcomes]


def answers(extender, question, num_seeds=NUM_SEEDS):
    """To some seeds: one answer of a random network may well be empty."""
    return [extender.ask(replace(question, seed=seed)) for seed in range(num_seeds)]


def test_the_seed_makes_the_answer(qwen):
    first = answers(qwen, QUESTION)
    assert first == answers(qwen, QUESTION)
    assert len(set(first)) == NUM_SEEDS


def test_the_global_generator_has_no_part_in_it(qwen):
    torch.manual_seed(1)
    first, state = qwen.ask(QUESTION), torch.get_rng_state()
    torch.manual_seed(2)
    assert first == qwen.ask(QUESTION)
    torch.manual_seed(1)
    assert torch.equal(state, torch.get_rng_state())


def test_what_is_asked_tells(qwen):
    assert answers(qwen, QUESTION) != answers(qwen, replace(QUESTION, text="a dog"))
    assert answers(qwen, QUESTION) != answers(qwen, replace(QUESTION, system="write less"))


@pytest.mark.parametrize("seed", range(3))
def test_an_answer_is_the_same_alone_and_among_others(folders, seed):
    qwen = reborn(QwenExtender(str(folders / "text"), dtype="float32"), seed)
    single = alone(qwen, OTHERS)
    assert {type(outcome) for outcome in single} == {str, CutAnswerError}
    assert shown(qwen.ask_all(OTHERS)) == shown(single)


@pytest.mark.parametrize("seed", range(2))
def test_answers_to_images_are_the_same_alone_and_among_others(folders, seed):
    qwen_vl = reborn(QwenExtender(str(folders / "vl"), dtype="float32"), seed)
    pictures = [(IMAGE,), (), (WIDE, IMAGE), ()]
    questions = [replace(other, images=images) for other, images in zip(OTHERS, pictures, strict=True)]
    assert shown(qwen_vl.ask_all(questions)) == shown(alone(qwen_vl, questions))


def test_each_row_of_a_batch_is_what_it_is_alone(qwen_vl):
    questions = [
        replace(OTHERS[2], images=(IMAGE,)),
        replace(OTHERS[0], images=(WIDE, IMAGE)),
        replace(OTHERS[1], images=(WIDE,)),
    ]
    rows = [qwen_vl._inputs(question) for question in questions]
    batch = qwen_vl._batch(rows)
    positions_3BL, _ = qwen_vl.model.model.get_rope_index(**batch)
    for number, row in enumerate(rows):
        single = qwen_vl._batch([row])
        assert single["attention_mask"].all()
        start = -row["input_ids"].shape[1]
        for name in ("input_ids", "attention_mask", "mm_token_type_ids"):
            assert torch.equal(batch[name][number, start:], single[name][0])
        assert not batch["attention_mask"][number, :start].any()
        assert not batch["mm_token_type_ids"][number, :start].any()
        assert set(batch["input_ids"][number].tolist()) == set(row["input_ids"][0].tolist())
        assert int(single["mm_token_type_ids"].sum()) == int(row["image_grid_thw"].prod(-1).sum()) // 4
        alone_3BL, _ = qwen_vl.model.model.get_rope_index(**single)
        assert torch.equal(positions_3BL[:, number, start:], alone_3BL[:, 0])
        assert int(alone_3BL.max()) < -start - 1


def test_one_bad_question_leaves_the_others_alone(qwen_vl):
    questions = [
        replace(QUESTION, images=(np.zeros((4, 2000, 3), np.uint8),)),
        replace(QUESTION, images=(IMAGE,)),
        replace(QUESTION, text="<|image_pad|>", images=(IMAGE,)),
        replace(QUESTION, text="<|image_pad|>"),
    ]
    outcomes = qwen_vl.ask_all(questions)
    assert [type(outcome) for outcome in outcomes] == [InputError, str, InputError, str]
    assert shown(outcomes) == shown(alone(qwen_vl, questions))


def test_questions_that_come_together_share_one_call(qwen_vl, monkeypatch):
    sizes = []
    generate = qwen_vl.model.generate
    monkeypatch.setattr(
        qwen_vl.model,
        "generate",
        lambda **inputs: (sizes.append(len(inputs["input_ids"])), generate(**inputs))[1],
    )
    qwen_vl.ask_all([QUESTION, replace(QUESTION, images=(IMAGE,)), *OTHERS])
    assert sizes == [5, 1]
    assert qwen_vl.ask_all([]) == []


def test_images_and_their_order_tell(qwen_vl):
    pictures = [(), (IMAGE,), (255 - IMAGE,), (IMAGE, 255 - IMAGE), (255 - IMAGE, IMAGE)]
    given = [tuple(answers(qwen_vl, replace(QUESTION, images=images), 2)) for images in pictures]
    assert len(set(given)) == len(pictures)


def test_images_get_their_tokens_between_their_marks(qwen_vl):
    wide = np.zeros((3000, 4000, 3), dtype=np.uint8)
    inputs = qwen_vl._inputs(replace(QUESTION, images=(IMAGE, wide)))
    pixels = inputs["image_grid_thw"].prod(-1) * 14**2
    assert pixels.min() >= 256 * 28**2
    assert pixels.max() <= 1280 * 28**2
    is_image = inputs["input_ids"][0] == qwen_vl.model.config.image_token_id
    assert int(is_image.sum()) == int(pixels.sum()) // 28**2
    assert int(is_image.int().diff().eq(1).sum()) == 2


def test_thinking_is_off(qwen):
    assert qwen._chat(QUESTION).endswith("assistant\n<think>\n\n</think>\n\n")


def test_a_text_checkpoint_refuses_images(qwen):
    with pytest.raises(InputError, match=r"text checkpoint .* VL checkpoint such as"):
        qwen.ask(replace(QUESTION, images=(IMAGE,)))


def test_images_that_qwen_refuses_are_the_rows_fault(qwen_vl):
    with pytest.raises(InputError, match="images of 2000x4 pixels"):
        qwen_vl.ask(replace(QUESTION, images=(np.zeros((4, 2000, 3), np.uint8),)))
    with pytest.raises(InputError, match="take it out"):
        qwen_vl.ask(replace(QUESTION, text="<|image_pad|>", images=(IMAGE,)))


def test_an_answer_without_end_is_cut_and_said_to_be(qwen):
    with pytest.raises(CutAnswerError, match="max_tokens=1"):
        answers(qwen, replace(QUESTION, max_tokens=1))


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("text", "config.json"),
        ("text", "model.safetensors"),
        ("text", "tokenizer.json"),
        ("text", "chat_template.jinja"),
        ("vl", "preprocessor_config.json"),
    ],
)
def test_a_folder_that_lacks_a_file(folders, tmp_path, kind, name):
    shutil.copytree(folders / kind, tmp_path / "broken")
    (tmp_path / "broken" / name).unlink()
    with pytest.raises(ConfigError, match=rf"broken (has no|lacks) .*{name.split('.')[0].split('_')[-1]}"):
        QwenExtender(str(tmp_path / "broken"))


def test_a_missing_shard_is_named(folders, tmp_path):
    shutil.copytree(folders / "text", tmp_path / "broken")
    (tmp_path / "broken/model.safetensors").unlink()
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (tmp_path / "broken/model.safetensors.index.json").write_text(json.dumps(index))
    (tmp_path / "broken/model-00001-of-00002.safetensors").touch()
    with pytest.raises(ConfigError, match=r"lacks model-00002-of-00002\.safetensors: copy"):
        QwenExtender(str(tmp_path / "broken"))


def test_other_models_are_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(ConfigError, match="model_type llama"):
        QwenExtender(str(tmp_path))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ConfigError, match="no JSON"):
        QwenExtender(str(tmp_path))


def test_the_checkpoint_says_how_to_sample_unless_it_is_greedy():
    wanted = Sampling(temperature=0.6, top_p=0.95, top_k=30)
    config = GenerationConfig(do_sample=True, temperature=0.6, top_p=0.95, top_k=30)
    assert Sampling.of(config) == wanted
    assert Sampling.of(GenerationConfig()) == Sampling()
    assert Sampling.of(GenerationConfig(do_sample=True, temperature=1e-6)) == Sampling()
    assert Sampling.of(GenerationConfig(do_sample=True, temperature=0.5, top_k=1)) == Sampling()


def test_tokens_are_drawn_by_their_shares():
    scores_BV = torch.tensor([[0.1, 0.5, 0.05, 0.35]]).log()
    choice = SeededChoice(Sampling(temperature=1.0, top_p=0.8, top_k=3), [0])
    drawn = [int(choice(torch.empty(1, 0), scores_BV).argmax()) for _ in range(2000)]
    assert set(drawn) == {1, 3}
    assert drawn.count(1) / len(drawn) == pytest.approx(0.5 / 0.85, abs=0.04)


def test_each_row_is_drawn_by_its_own_seed():
    scores_BV = torch.randn(3, 50, generator=torch.Generator().manual_seed(0))
    seeds = [5, 6, 5]
    together = SeededChoice(Sampling(), seeds)
    single = [SeededChoice(Sampling(), [seed]) for seed in seeds]
    ids = torch.empty(3, 0)
    for _ in range(20):
        rows = [choice(ids[:1], row[None]) for choice, row in zip(single, scores_BV, strict=True)]
        assert torch.equal(together(ids, scores_BV), torch.cat(rows))


def test_closing_twice_is_harmless(folders):
    qwen = QwenExtender(str(folders / "text"))
    qwen.close()
    qwen.close()
