"""The small BLIP: configuration, tokenizer, and the folder that plain transformers load."""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from torch import nn
from transformers import (
    BertTokenizerFast,
    BlipConfig,
    BlipForConditionalGeneration,
    BlipForImageTextRetrieval,
)

from uniadapter.model.dispatch import adapter_store
from world.canvas import MEAN, PATCH, SIZE, STD

SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", "[ENC]"]
VOCABULARY = 3600
POSITIONS = 64


def train_tokenizer(corpus: list[str]) -> BertTokenizerFast:
    """A WordPiece with BERT's conventions and BLIP's two extra tokens."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))  # type: ignore[call-arg]
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=VOCABULARY, special_tokens=SPECIALS)
    tokenizer.train_from_iterator(corpus, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(t, tokenizer.token_to_id(t)) for t in ("[CLS]", "[SEP]")],
    )
    return as_bert(tokenizer)


def as_bert(tokenizer: Tokenizer) -> BertTokenizerFast:
    """The class that transformers loads, with BLIP's special tokens named."""
    return BertTokenizerFast(
        tokenizer_object=tokenizer,
        do_lower_case=True,
        model_max_length=POSITIONS,
        additional_special_tokens=["[DEC]", "[ENC]"],
        bos_token="[DEC]",
    )


def blip_config(tokenizer: BertTokenizerFast) -> BlipConfig:
    """Sizes of the embedded model; whatever BLIP sets apart from the class defaults is set."""
    ids = tokenizer.convert_tokens_to_ids
    vision = {
        "image_size": SIZE, "patch_size": PATCH, "num_hidden_layers": 6, "hidden_size": 192,
        "num_attention_heads": 3, "intermediate_size": 768, "layer_norm_eps": 1e-6,
        "initializer_range": 0.02, "projection_dim": 64,
    }  # fmt: skip
    text = {
        "vocab_size": len(tokenizer), "num_hidden_layers": 3, "hidden_size": 192,
        "encoder_hidden_size": 192, "num_attention_heads": 3, "intermediate_size": 768,
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


class PretrainingBlip(nn.Module):
    """The retrieval class and the caption decoder over one set of shared weights.

    As in BLIP, the decoder has self-attention of its own and shares the embeddings,
    cross-attention and feed-forward layers of the text encoder while pre-training.
    """

    def __init__(self, config: BlipConfig, concepts: int) -> None:
        super().__init__()
        self.concepts = nn.Linear(config.vision_config.hidden_size, concepts)
        self.patches = nn.Linear(config.vision_config.hidden_size, concepts)
        self.retrieval = BlipForImageTextRetrieval(config)
        self.captioner = BlipForConditionalGeneration(config)
        self.captioner.vision_model = self.retrieval.vision_model
        encoder = self.retrieval.text_encoder
        self.decoder.bert.embeddings = encoder.embeddings
        self.decoder.cls.predictions.decoder.weight = encoder.embeddings.word_embeddings.weight
        self.decoder.cls.predictions.decoder.bias = self.decoder.cls.predictions.bias
        for own, shared in zip(self.decoder.bert.encoder.layer, encoder.encoder.layer, strict=True):
            own.crossattention = shared.crossattention
            own.intermediate = shared.intermediate
            own.output = shared.output
        self._initialise()
        for model in (self.retrieval, self.captioner):
            adapter_store(model)  # SDPA; no weight moves

    @property
    def decoder(self) -> nn.Module:
        """The caption decoder."""
        return self.captioner.text_decoder

    def _initialise(self) -> None:
        """What the classes leave too large or at zero: positions and the class token."""
        embeddings = self.retrieval.vision_model.embeddings
        for parameter in (embeddings.class_embedding, embeddings.position_embedding):
            nn.init.trunc_normal_(parameter, std=0.02)
        depth = self.retrieval.config.vision_config.num_hidden_layers
        for layer in self.retrieval.vision_model.encoder.layers:
            for linear in (layer.self_attn.projection, layer.mlp.fc2):
                nn.init.normal_(linear.weight, std=0.02 / math.sqrt(2 * depth))


def export(model: PretrainingBlip, tokenizer: BertTokenizerFast, folder: Path) -> None:
    """One folder for both task classes: float16 weights that load as float32."""
    folder.mkdir(parents=True, exist_ok=True)
    state = dict(model.retrieval.state_dict())
    for key, value in model.decoder.state_dict().items():
        # tied to other keys of the file: transformers ties them again on loading
        if key not in ("cls.predictions.decoder.weight", "cls.predictions.decoder.bias"):
            state["text_decoder." + key] = value
    tensors = {k: v.detach().to(torch.float16).clone().contiguous() for k, v in state.items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = model.retrieval.config
    config.architectures = ["BlipForImageTextRetrieval"]
    config.dtype = torch.float32
    config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    processor = {
        "image_processor_type": "BlipImageProcessor",
        "processor_class": "BlipProcessor",
        "do_resize": True, "do_rescale": True, "do_normalize": True, "do_convert_rgb": True,
        "size": {"height": SIZE, "width": SIZE}, "resample": 3, "rescale_factor": 1 / 255,
        "image_mean": list(MEAN), "image_std": list(STD),
    }  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(processor, indent=2) + "\n")
    file = folder / "tokenizer_config.json"
    settings = json.loads(file.read_text())
    for key in ("is_local", "local_files_only"):  # of the machine that wrote it, not of the tokenizer
        settings.pop(key, None)
    settings["model_input_names"] = ["input_ids", "attention_mask"]  # BLIP has no token types
    file.write_text(json.dumps(settings, indent=2) + "\n")
    (folder / "model.safetensors").chmod(0o644)  # safetensors makes it readable by its owner only
