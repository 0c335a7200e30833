"""The model card of an adapter folder: a description, and Python code to use it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from uniadapter.config import AdapterConfig
from uniadapter.model.settings import InferenceSettings

_TAGS = {
    "retrieval": "zero-shot-image-classification",
    "vqa": "visual-question-answering",
    "caption": "image-to-text",
}
_VIDEO_TAGS = {"retrieval": "feature-extraction", "vqa": "video-text-to-text", "caption": "video-text-to-text"}
_USES = {
    "retrieval": """images = ua.image_features(model, [{file!r}])
texts = ua.text_features(model, tokenizer, ["a red square", "a blue square"])
print(texts.feature @ images.feature.T)
print(ua.pair_scores(model, tokenizer, images, texts))""",
    "vqa": """print(ua.ask(model, tokenizer, {file!r}, ["what is in the picture?"]))""",
    "caption": """print(ua.caption(model, tokenizer, [{file!r}]))""",
}


MARK = "library_name: uniadapter"  # a line of every card that this package writes


def model_card(
    task: str,
    base: str,
    model_class: str,
    sha256: str | None,
    adapter: AdapterConfig,
    settings: InferenceSettings,
    parameters: int,
    size: int,
    extra: Mapping[str, Any],
) -> str:
    """The text of the model card.

    Args:
        task: "retrieval", "vqa" or "caption".
        base: name of the base.
        model_class: name of the class in transformers that it was trained in.
        sha256: hash of the base; None if it is quantised.
        adapter: which adapters, and their sizes.
        settings: inference settings.
        parameters: number of parameters.
        size: of the weights' file in bytes.
        extra: further JSON values; for lists, the length is shown.
    """
    moving = (settings.frames or 1) > 1
    use = _USES[task].format(file="video.mp4" if moving else "picture.jpg")
    told = [f"- {key}: {len(value) if isinstance(value, list) else value}" for key, value in extra.items()]
    told += [f"- {key}: {value!r}" for key, value in settings.to_dict().items() if key != "answers"]
    if settings.answers:
        told.append(f"- answers to choose from: {len(settings.answers):,}")
    hashed = f",\nwhose tensors hash to `{sha256[:16]}…`" if sha256 else ""
    within = (
        f", adapters of width {adapter.self_attention} in the text's self-attention" if adapter.self_attention else ""
    )
    return f"""---
{MARK}
base_model: {json.dumps(base)}
pipeline_tag: {(_VIDEO_TAGS if moving else _TAGS)[task]}
tags: [uniadapter, blip, adapter]
---

# UniAdapter for {task}

{parameters:,} parameters ({size / 1e6:.2f} MB) on the frozen base `{base}` (`{model_class}`){hashed}.

Bottleneck r = {adapter.bottleneck}, key/value adapters of width {adapter.key_value}, frame-aware attention
{"on" if adapter.frame_aware else "off"}{within}. The method: [UniAdapter](https://arxiv.org/abs/2302.06605), ICLR 2024.

It was trained with the following settings, which the calls below use automatically:

{chr(10).join(told)}

```python
import uniadapter as ua

model, tokenizer = ua.load_model({base!r}, {task!r}), ua.load_tokenizer({base!r})
ua.load_adapter(model, "path/to/this/folder")
{use}
```
"""
