"""Model card of the embedded backbone: ``python -m world.model_card``, after the export."""
# ruff: noqa: E501 - lines of tables

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import re
from pathlib import Path
from typing import Any

from safetensors import safe_open

from world import sources
from world.gather import CACHE

CARD = """---
license: apache-2.0
library_name: transformers
pipeline_tag: image-text-to-text
tags: [blip, image-text-retrieval, image-captioning]
---
# A small BLIP, pre-trained on drawn emoji

{millions:.2f} M weights in this file ({megabytes:.1f} MB, float16, loading as float32): vision {vision}, text encoder and caption
decoder {text}. It exists so that `uniadapter` has something to adapt without a download. It knows
emoji drawn on plain backgrounds and their English names; it is of no use for photographs.

```python
from transformers import AutoProcessor, BlipForImageTextRetrieval, BlipForConditionalGeneration

model = BlipForImageTextRetrieval.from_pretrained("assets/backbone")
captioner = BlipForConditionalGeneration.from_pretrained("assets/backbone")
processor = AutoProcessor.from_pretrained("assets/backbone")
```

Both classes (and `BlipForQuestionAnswering`) load from the one folder with no missing key. Conventions are BLIP's: text
alone starts with `[CLS]`, text fused with a picture with `[ENC]`, the decoder with `[DEC]`; captions were learnt after
the prompt "a picture of".

## How it was trained

From scratch, by `python -m world.pretrain` of this repository, on a 2-core CPU in float32: {steps} steps of {batch}
pictures (seed {seed}; Muon at {muon_lr} on the matrices inside the layers, AdamW at {lr} on the rest, {warm} steps of warm-up,
linear decay over the last {decay:.0%}), after the earlier stages below. Losses: image-text contrastive (temperature 0.07; every canvas that a caption is true of is its positive),
image-text matching with hard negatives, captioning with label smoothing 0.1 and, for a footing, which concepts a canvas
shows, which one shows on each patch (the heads of these two are not in this folder), and that words attend to the patches of
what they name, or to the class token where it is not there (two heads of the second text layer). While training, the decoder shares
embeddings, cross-attention and feed-forward layers with the text encoder, as BLIP's does; the file holds both copies.

Data: {pictures} pictures of {concepts} emoji (un-toned), drawn at another size, angle, place, light and background each time. A canvas
holds one drawing, with a caption that may say where it is, how large, or on what colour; or two to four, with a caption that
names some or all of them in any order and says nothing of where they are. Captions made false (another place, colour or
name) serve as negatives. Never seen: the 3-D style, the `novel` families of the scenes (pictures, captions, tokenizer), any
sentence that relates two things. The schedule (from easy drawings to full canvases; when matching begins) is in `pretrain.py`.
{restarts}
Before it, on the same material: 793 steps with AdamW at 0.001 (seed 0); 2,600 with Muon at 0.02 (seed 0), in which matching
learnt next to nothing; 1,000 with AdamW at 4e-4, matching weighed threefold (seed 1); 300 with Muon at 0.01, from which on words
were told where to look (seed 2; queries and keys of the text encoder's cross-attention drawn anew): `docs/log.md`.

Then, with vision, text encoder and heads as they were, the decoder (its own copies by now) was taught to answer, by
`python -m world.teach`: {taught[steps]} steps of {taught[asked]} questions and {taught[told]} captions on {taught[canvases]} canvases of the same drawings (seed {taught[seed]};
Muon at {taught[muon_lr]}, AdamW at {taught[lr]}). Asked was what kind of thing is there, how many, of what kind it is, where it is; never how two
things stand to each other, and nothing about the 3-D style. The questions were read by a copy of the text encoder; what that copy
changed (cross-attention, upper feed-forward layers) is `question_encoder.safetensors`, as BLIP has a checkpoint for question
answering. `uniadapter.load_model("embedded", "vqa")` puts both together.

## Zero-shot, on validation material

{scores}

Singles: {singles} pictures in the 3-D style of families of the validation split, against as many labels. Scenes: the
validation split of `assets/scenes`, text to image, by contrastive scores and after reranking the ten best by the
matching head. No number of a test split was looked at.

## Licences

The weights and files in this folder: Apache-2.0, as the repository. Pictures used in training (none ships here):

| package | version | licence |
|---|---|---|
{packages}

Words: emojibase-data (MIT), CLDR annotations (Unicode-3.0), emojilib (MIT); licence texts are in `../scenes/licences`. Credit, as CC-BY asks: Twemoji (Twitter and contributors), EmojiOne/JoyPixels
v2, OpenMoji (CC-BY-SA: used for training only).

sha256 of `model.safetensors`: `{sha}`, of `question_encoder.safetensors`: `{questions_sha}`
"""
NAMES = {
    "i2t_r1": "singles, image to text R@1",
    "i2t_r10": "singles, image to text R@10",
    "t2i_r1": "singles, text to image R@1",
    "t2i_r10": "singles, text to image R@10",
    "scenes_t2i_r1": "scenes, text to image R@1",
    "scenes_t2i_r10": "scenes, text to image R@10",
    "scenes_t2i_r1_reranked": "scenes, text to image R@1, reranked",
}


def settings_of(text: str) -> dict[str, Any]:
    """The arguments of a run, as its log has them."""
    return ast.literal_eval(re.sub(r"PosixPath\(('[^']*')\)", r"\1", text))


def main() -> None:
    """Write ``README.md`` from the exported folder and the log of the run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, default=CACHE / "run")
    parser.add_argument("--taught", type=Path, default=CACHE / "taught")
    parser.add_argument("--folder", type=Path, default=CACHE.parent.parent / "assets" / "backbone")
    args = parser.parse_args()
    log = (args.run / "log.txt").read_text()
    starts = re.findall(r"from step (\d+) to (\d+), (\{.*\})", log)
    settings = settings_of(starts[-1][2])
    plans = [f"from step {first} with `--steps {last}`" for first, last, _ in starts]
    taught = settings_of(re.findall(r"are taught, (\{.*\})", (args.taught / "log.txt").read_text())[-1])
    restarts = f"The run was resumed: {', then '.join(plans)}." if len(plans) > 1 else ""
    scores = json.loads(re.findall(r"zero-shot (\{.*?\})", log)[-1])
    config = json.loads((args.folder / "config.json").read_text())
    weights = args.folder / "model.safetensors"
    with safe_open(weights, "pt") as file:
        count = sum(file.get_tensor(key).numel() for key in file.keys())  # noqa: SIM118
    facts = json.loads((CACHE / "facts.json").read_text())
    vision, text = config["vision_config"], config["text_config"]
    card = CARD.format(
        millions=count / 1e6,
        megabytes=weights.stat().st_size / 1e6,
        vision=f"{vision['num_hidden_layers']} layers of {vision['hidden_size']}, {vision['image_size']} px, patch {vision['patch_size']}",
        text=f"{text['num_hidden_layers']} layers of {text['hidden_size']} each, {text['vocab_size']} word pieces",
        pictures=facts["pretraining_pictures"],
        concepts=facts["pretraining_concepts"],
        scores="\n".join(f"- {label}: {scores[key]}" for key, label in NAMES.items() if key in scores),
        singles=scores["singles"],
        restarts=restarts,
        packages="\n".join(f"| {p.name} | {p.version} | {p.licence} |" for p in sources.DRAWN.values()),
        taught=taught,
        questions_sha=hashlib.sha256((args.folder / "question_encoder.safetensors").read_bytes()).hexdigest(),
        sha=hashlib.sha256(weights.read_bytes()).hexdigest(),
        **{key: settings[key] for key in ("steps", "batch", "seed", "lr", "muon_lr", "warm", "decay")},
    )
    (args.folder / "README.md").write_text(card)


if __name__ == "__main__":
    main()
