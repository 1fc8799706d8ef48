"""Models that know a list of words: what they do not know is told in the plan and with the clip."""

import json
import shutil

import pytest
import yaml
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from wanray.checkpoint.vocabulary import Vocabulary

WORDS = ("a", "cat", "red", "runs")


def word_tokenizer():
    vocabulary = {token: number for number, token in enumerate(["<pad>", "</s>", "<unk>", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    special = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


@pytest.fixture
def config(tiny, tmp_path):
    """A job with a checkpoint whose tokenizer knows four words."""
    shutil.copytree(tiny("t2v-1.3b"), tmp_path / "model")
    shutil.rmtree(tmp_path / "model/tokenizer")
    word_tokenizer().save_pretrained(tmp_path / "model/tokenizer")
    content = {
        "output": {"url": str(tmp_path / "out")},
        "model": {"path": str(tmp_path / "model")},
        "engine": "local",
        "numerics": {"dtype": "float32"},
        "defaults": {"size": "64x64", "num_frames": 5, "steps": 2, "negative_prompt": " "},
    }
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(content))
    return tmp_path / "c.yaml"


def test_unknown_words_in_order_and_once(tmp_path):
    word_tokenizer().save_pretrained(tmp_path)
    vocabulary = Vocabulary.read(str(tmp_path))
    assert vocabulary.words == WORDS
    assert vocabulary.unknown("A Cat runs") == []
    assert vocabulary.unknown("a Dragon and a red dog and a cat") == ["Dragon", "and", "dog"]
    assert vocabulary.unknown("") == []


def test_tokenizers_of_pieces_have_none(tiny):
    assert Vocabulary.read(str(tiny("t2v-1.3b") / "tokenizer")) is None


def test_plan_and_clip_tell_unknown_words(config, tmp_path, run_cli):
    code, out, _ = run_cli("render", config, "defaults.prompt=[a red dragon, a cat runs]")
    assert code == 0, out
    assert "words that the model does not know (dragon); it knows a, cat, red, runs" in out
    metas = [json.loads(path.read_text()) for path in (tmp_path / "out").glob("clips/*/*/meta.json")]
    notes = {meta["request"]["prompt"]: meta["notes"] for meta in metas}
    assert notes == {"a red dragon": ["prompt: the model does not know dragon"], "a cat runs": []}


def test_nothing_is_told_where_all_is_known(config, run_cli):
    code, out, _ = run_cli("plan", config, "defaults.prompt=a red cat runs")
    assert code == 0
    assert "does not know" not in out
