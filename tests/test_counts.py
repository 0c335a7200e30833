"""Parameters, counted to the last one, on BLIP-base and BLIP-large (on the meta device: no weight is made)."""

from __future__ import annotations

import pytest
import torch
from transformers import BlipConfig, BlipForImageTextRetrieval, BlipForQuestionAnswering

from tiny import tiny_config, tiny_model
from uniadapter.checkpoints.adapters import add_adapter
from uniadapter.config import AdapterConfig
from uniadapter.model.adapter_set import AdapterSet
from uniadapter.model.counting import count_parameters
from uniadapter.model.sets import add_momentum, disable_adapter, select_adapter
from uniadapter.model.shape import BackboneShape

BASE = BackboneShape(vision_layers=12, vision_width=768, text_layers=12, text_width=768)
PUBLISHED = [(128, 0, 4_784_640), (512, 0, 18_945_024), (128, 64, 4_982_914)]


def blip_config(width: int = 768, layers: int = 12, heads: int = 12) -> BlipConfig:
    """BLIP-base, or with another ViT; BERT-base."""
    return BlipConfig(
        vision_config={
            "hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": layers,
            "num_attention_heads": heads, "image_size": 384, "patch_size": 16,
        },
        text_config={
            "vocab_size": 30524, "hidden_size": 768, "encoder_hidden_size": width, "intermediate_size": 3072,
            "num_hidden_layers": 12, "num_attention_heads": 12, "max_position_embeddings": 512,
        },
        image_text_hidden_size=256,
    )  # fmt: skip


def blip(**sizes: int) -> BlipForImageTextRetrieval:
    """A retrieval BLIP without weights."""
    with torch.device("meta"):
        return BlipForImageTextRetrieval(blip_config(**sizes))


@pytest.mark.parametrize(("bottleneck", "key_value", "expected"), PUBLISHED)
def test_a_set_on_blip_base_has_exactly_the_published_count(bottleneck: int, key_value: int, expected: int) -> None:
    config = AdapterConfig(bottleneck=bottleneck, key_value=key_value, heads=False)
    with torch.device("meta"):
        built = AdapterSet(config, BASE, {})
    assert sum(p.numel() for p in built.parameters()) == built.adapter_parameters() == expected


@pytest.mark.parametrize(("bottleneck", "key_value", "expected"), PUBLISHED)
def test_an_injected_blip_base_trains_exactly_that(bottleneck: int, key_value: int, expected: int) -> None:
    model = blip()
    before = sum(p.numel() for p in model.parameters())
    add_adapter(model, AdapterConfig(bottleneck=bottleneck, key_value=key_value, heads=False))
    counts = count_parameters(model)
    assert (counts.trainable, counts.adapter, counts.total) == (expected, expected, before)


def test_percentages_on_blip_base() -> None:
    shared = blip()
    add_adapter(shared, AdapterConfig(bottleneck=128, key_value=0))
    assert round(count_parameters(shared).adapter_percent, 2) == 2.14, "the shared adapters alone"
    model = blip()
    add_adapter(model, AdapterConfig(bottleneck=128, key_value=64))
    add_momentum(model)
    counts = count_parameters(model)
    heads = 2 * (768 * 256 + 256) + 768 * 2 + 2
    assert counts.trainable == 4_982_914 + heads
    assert counts.total == 223_744_258
    assert counts.embeddings == 30524 * 768
    assert round(counts.trainable_percent, 2) == 2.40
    assert round(counts.adapter_percent, 2) == 2.23, "with the key/value adapters, without heads"
    assert round(counts.trainable_percent_without_embeddings, 2) == 2.69
    for part in (f"{counts.trainable:,}", "%: 2.4037", "2.2271", "2.6850"):
        assert part in str(counts)


def test_a_tied_token_embedding_is_counted_once() -> None:
    model = BlipForQuestionAnswering(tiny_config())
    expected = sum(p.numel() for p in model.parameters())
    add_adapter(model, AdapterConfig(bottleneck=4, key_value=2))
    counts = count_parameters(model)
    assert counts.total == expected
    assert counts.embeddings == 2 * 64 * 32, "the encoder's and the decoder's; the language head is the decoder's"
    assert counts.trainable == counts.adapter, "an answering BLIP has no heads of ours"


def test_counts_follow_the_selection_and_ignore_momentum() -> None:
    model = tiny_model()
    one = add_adapter(model, AdapterConfig(bottleneck=4, key_value=2))
    size = sum(p.numel() for p in one.parameters())
    total = count_parameters(model).total
    add_momentum(model)
    assert (count_parameters(model).trainable, count_parameters(model).total) == (size, total)
    add_adapter(model, AdapterConfig(bottleneck=8, key_value=2, heads=False), "other")
    assert count_parameters(model).trainable == count_parameters(model).adapter != size
    assert count_parameters(model).total == total
    select_adapter(model, "default")
    assert count_parameters(model).trainable == size
    with disable_adapter(model):
        assert count_parameters(model).trainable == size, "a context switches the computation, not what is trained"
    select_adapter(model, None)
    assert count_parameters(model).trainable == 0


def test_vit_large_with_bert_base_shares_what_can_be_shared() -> None:
    model = blip(width=1024, layers=24, heads=16)
    built = add_adapter(model, AdapterConfig(bottleneck=128, key_value=0, heads=False))
    vision = 24 * (2 * 1024 + 1024 * 128 + 128 + 128 * 1024 + 1024)
    text = 12 * (4 * 768 + 768 * 128 + 128 + 2 * (128 * 768 + 768))
    assert count_parameters(model).trainable == vision + text
    plan = "\n".join(built.plan())
    assert "widths differ (vision 1024, text 768)" in plan
    assert "vision layers 0-23" in plan
    assert "text layers 0-11: one adapter each for text and cross-attention" in plan


def test_the_plan_says_what_is_shared() -> None:
    def plan(depth: int, text_depth: int, **switches: object) -> list[str]:
        shape = BackboneShape(depth, 32, text_depth, 32, decoder_source=32)
        return AdapterSet(AdapterConfig(bottleneck=4, **switches), shape, {}).plan()  # type: ignore[arg-type]

    assert plan(2, 2, key_value=0) == ["layers 0-1: one adapter each for vision, text and cross-attention, r = 4"]
    assert plan(4, 2)[1] == "layers 2-3: one adapter each for vision, r = 4"
    assert plan(1, 2)[1] == "layer 1: one adapter each for text and cross-attention, r = 4"
    assert plan(2, 2, cross=False)[0] == "layers 0-1: one adapter each for vision and text, r = 4"
    assert len(plan(2, 2, vision=False, text=False, cross=False)) == 1, "only keys and values"
    assert (
        plan(2, 2, decoder="separate")[1] == "decoder layers 0-1: one adapter each for text and cross-attention, r = 4"
    )


@pytest.mark.parametrize("frames", [0, 5])
def test_each_switch_builds_only_its_own(frames: int) -> None:
    def size(**switches: object) -> int:
        config = AdapterConfig(**{"bottleneck": 4, "key_value": 0, "heads": False, **switches})  # type: ignore[arg-type]
        return AdapterSet(config, BackboneShape(3, 32, 2, 32), {}).adapter_parameters()

    down, up, norm = 32 * 4 + 4, 4 * 32 + 32, 2 * 32
    assert size(text=False, cross=False) == 3 * (norm + down + up)
    assert size(vision=False, cross=False) == 2 * (norm + down + up)
    assert size(vision=False, text=False) == 2 * (2 * norm + down + 2 * up), "cross reads the text up-projection"
    assert size(temporal_frames=frames) == size() + frames * 32
    assert size(key_value=6) == size() + 2 * (32 * 6 + 6 + 6 * 32 + 32 + 1)


def test_full_fine_tuning_trains_all_of_the_base_without_its_embeddings_too() -> None:
    """Token embeddings are left out above and below the line; they were below it alone, and 114% came out."""
    model = blip()
    model.requires_grad_(True)
    counts = count_parameters(model)
    assert counts.trainable == counts.total
    assert counts.trainable_embeddings == counts.embeddings > 0
    assert counts.trainable_percent_without_embeddings == 100
    assert "without token embeddings in the base 100.0000" in str(counts)
