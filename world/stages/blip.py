"""The small BLIP's configuration."""

from __future__ import annotations

from transformers import BlipConfig, PreTrainedTokenizerBase

from world.pictures.grounds import SIZE
from world.stages.vision import HEADS, LAYERS, PATCH, WIDTH
from world.texts.vocabulary import POSITIONS

TEXT_LAYERS = 3  # of the text encoder, and as many of the decoder


def blip_config(tokenizer: PreTrainedTokenizerBase) -> BlipConfig:
    """Sizes of the embedded model; whatever BLIP sets apart from the class defaults is set."""
    ids = tokenizer.convert_tokens_to_ids
    vision = {
        "image_size": SIZE, "patch_size": PATCH, "num_hidden_layers": LAYERS, "hidden_size": WIDTH,
        "num_attention_heads": HEADS, "intermediate_size": 4 * WIDTH, "layer_norm_eps": 1e-6,
        "initializer_range": 0.02, "projection_dim": 64,
    }  # fmt: skip
    text = {
        "vocab_size": len(tokenizer), "num_hidden_layers": TEXT_LAYERS, "hidden_size": WIDTH,
        "encoder_hidden_size": WIDTH, "num_attention_heads": HEADS, "intermediate_size": 4 * WIDTH,
        "max_position_embeddings": POSITIONS, "is_decoder": True, "hidden_act": "gelu",
        "label_smoothing": 0.1, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
        "projection_dim": 64, "bos_token_id": ids("[DEC]"), "pad_token_id": ids("[PAD]"),
        "sep_token_id": ids("[SEP]"), "eos_token_id": ids("[SEP]"),
    }  # fmt: skip
    return BlipConfig(
        text_config=text,
        vision_config=vision,
        image_text_hidden_size=64,
        projection_dim=64,
        label_smoothing=0.1,
    )
