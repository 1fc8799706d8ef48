"""Text embeddings: the same bits alone, in a batch, and after the official padding to 512 tokens."""

import pytest
import torch

from wanray.checkpoint import open_checkpoint
from wanray.models.state import DTYPES
from wanray.models.text import TextEncoder
from wanray.sizing import TEXT_BUCKETS

TEXTS = ["a cat", "", "cat " * 63, "cat " * 64, "cat " * 200, "cat " * 300, "cat " * 600, "a dog"]


@pytest.fixture(params=["float32", "bfloat16"])
def encoder(request, tiny):
    checkpoint = open_checkpoint(tiny("t2v-1.3b"))
    return TextEncoder(checkpoint.text_encoder, checkpoint.tokenizer, DTYPES[request.param], "cpu")


def test_a_text_has_the_same_embedding_in_any_company(encoder):
    alone = [encoder.encode(text) for text in TEXTS]
    for texts in (TEXTS, TEXTS[::-1], TEXTS * 2):
        for text, found in zip(texts, encoder.encode_all(texts), strict=True):
            expected = alone[TEXTS.index(text)]
            assert torch.equal(found.text_LD, expected.text_LD), text
            assert found.num_tokens == expected.num_tokens


def test_a_short_padding_is_as_good_as_the_official_one(encoder):
    short = encoder.encode_all(TEXTS)
    encoder.buckets = TEXT_BUCKETS[-1:]
    for found, expected in zip(short, encoder.encode_all(TEXTS), strict=True):
        assert torch.equal(found.text_LD, expected.text_LD)


def test_every_bucket_is_met(encoder):
    lengths = {encoder._bucket(encoder._tokens(text)[0]) for text in TEXTS}
    assert lengths == set(TEXT_BUCKETS)
    assert [item.text_LD.shape[0] for item in encoder.encode_all(["", "cat " * 600])] == [1, 512]
