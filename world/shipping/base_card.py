"""The base's model card, written from logs and figures."""

# ruff: noqa: E501 - prose of the card is not wrapped
from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from safetensors import safe_open

from uniadapter.files.writing import file_hash
from world.pictures.sources import DRAWN, HELD_OUT, NEW, WORDS
from world.shipping.figures import FOLDER, measured, stages
from world.shipping.licences import sources_table, table

STAGES = {
    "stage1": "the visual encoder alone names what is on each patch; no text",
    "stage2": "texts, contrast, matching and answers on the tokens of the frozen visual encoder",
    "stage3": "a decoder of captions and answers on the same tokens, the base frozen",
    "stage4": "all parts jointly, the visual encoder at an eighth of the decoder's rate; above and below too",
}
FALSEHOODS = {
    "object": "another thing is named",
    "swapped in a relation": "a thing of a relation swapped",
    "relation turned": "left ↔ right turned",
    "things exchanged": "the two things of a relation exchanged",
    "place moved": "a thing said to be on another side of the picture",
    "places exchanged": "the sides of two things exchanged",
    "count": "another number of things",
    "ground": "another colour of the ground",
    "above swapped": "above / below: a thing swapped",
    "above turned": "above ↔ below turned",
    "above exchanged": "above / below: the two things exchanged",
    "left out: its turned": "“b with a to its left”, turned (grammar left out of pre-training)",
}
RETRIEVED = {"left out: its": "“b with a to its left” (left out of pre-training)"}
QUESTIONS = {
    "thing": "is there a cat?",
    "kind": "is there any animal?",
    "relation": "is the cat left of the dog?",
    "place": "is the cat on the left?",
    "count": "how many things are there?",
    "kind count": "how many animals are there?",
    "ground": "what colour is the ground?",
    "beside": "what is left of the dog?",
    "which": "which animal is there?",
    "where": "on which side is the cat?",
    "corner": "what is in the top left corner?",
    "above": "is the cat above the dog?",
    "what is above": "what is above the dog?",
}
CARD = """---
license: apache-2.0
library_name: transformers
pipeline_tag: image-text-to-text
tags: [blip, image-text-retrieval, image-captioning, visual-question-answering]
---
# A small BLIP, pre-trained on drawn emoji

{millions:.2f} M weights ({megabytes:.1f} MB, float16, loading as float32): visual encoder {vision[num_hidden_layers]} layers of {vision[hidden_size]}, {vision[image_size]} px, patch {vision[patch_size]}; text encoder and decoder {text[num_hidden_layers]} layers of {text[hidden_size]} each; {text[vocab_size]} words. It exists so that `uniadapter` has something to adapt without a download: it knows {seen} things drawn in {styles} styles, where they lie and how many they are, and of photographs nothing.

```python
from transformers import AutoProcessor, BlipForConditionalGeneration, BlipForImageTextRetrieval, BlipForQuestionAnswering

model = BlipForImageTextRetrieval.from_pretrained("assets/backbone")
captioner = BlipForConditionalGeneration.from_pretrained("assets/backbone")
answerer = BlipForQuestionAnswering.from_pretrained("assets/backbone")
processor = AutoProcessor.from_pretrained("assets/backbone")
```

All three classes load from the one folder. Conventions are BLIP's: text alone starts with `[CLS]`, text fused with a picture with `[ENC]`, the decoder with `[DEC]`; captions were learnt after the prompt "a picture of".

## How it was pre-trained

From scratch, in stages, by `python -m world --retrain` of this repository on CPUs ({minutes:.0f} CPU minutes in all: {hours:.1f} hours on two cores). Weights, logs and figures of the stages are in `world/stages/`. Training in bfloat16 is not reproducible to the last bit from machine to machine; from the stages' weights this folder is.

{stage_table}

Canvases of one to four things on plain grounds are painted from drawings that are varied anew all the time: turned, bent, lit, tinted, blurred. Captions name all or part of the things in many wordings, say where they are, how many, or on what colour; a text is made false by swapping a thing in, turning a relation, exchanging two things, changing a count. Dense losses tell what is on each patch, where a word looks, and how two things lie to one another. Muon for the matrices inside the layers, AdamW for the rest.

**It saw** {pictures} pictures of {seen} concepts in {styles} drawn styles; relations left, right{above}. **It never saw** the 3-D style of the tasks, the style `{held_out}` (kept for the measures below), {novel} concepts (pictures and names), the grammar "a cat with a dog to its left", "between", "only", sizes, chains of relations, two sentences in one, films.

## What it can do before anything is adapted

Per cent, measured on canvases of the drawn style that no step saw (`{held_out}`) and of the 3-D style; drawings, layouts, grounds and texts of their own seeds. Stage {fusion_stage}'s base, {canvases} canvases; `world/stages/*.json` has everything.

True captions told from falsehoods (chance 50): each text judged by itself, and by order, which of the two belongs more. The controls, on `{held_out}`, are by order, since by itself a score that never moves is right half the time: "text alone" sees the mean of all pictures, "shuffled pairs" another canvas.

{matching}
{wrong_way}
Text to picture among {twins} scenes in pairs that show the same two things exchanged, so that a bag of words tops out near 50; R@1:

{retrieval}

Questions, by the answer head of pre-training (not in this folder), with the controls on `{held_out}`; "picture alone" is asked "?" of every picture:

{questions}

The decoder (stage {speech_stage}, {spoken} canvases), greedily; CIDEr and BLEU-4 against five captions in other wordings{no_cider}:

{speech}

Concepts that it never saw, of which neither the drawings nor the words can be known (chance 50): {unseen}.

## Limits

Composed canvases on plain grounds, English by template, at most four things; nothing here says how a model sees photographs. Pre-training names things by hand-picked words: other words read as letters. {no_better}It is no use for anything but trying methods out.

## Licences

The weights and files in this folder: Apache-2.0, as the repository. Drawings that were used for training or measuring; none ships here:

{drawn}

Share-alike drawings (CC-BY-SA-4.0) were trained on only. Credit, as CC-BY asks: Twemoji (Twitter and contributors), Emoji One (Emoji One / JoyPixels and contributors), Streamline Emojis (Streamline), OpenMoji. Names were written after {words}; texts of their licences are in `../scenes/licences`.

## Citation

BLIP: Junnan Li, Dongxu Li, Caiming Xiong, Steven Hoi, arXiv 2201.12086 (the architecture; none of its weights). UniAdapter: Haoyu Lu et al., arXiv 2302.06605. The base itself: `CITATION.cff` of the repository.

sha256 of `model.safetensors`: `{sha}`
"""


def stage_table(logs: dict[str, dict[str, Any]]) -> str:
    """A row a stage that has a log."""
    rows = [
        (
            stage[5],
            STAGES[stage],
            row["step"],
            row["settings"]["batch"],
            row["cpu_seconds"] / 60,
            row["settings"]["seed"],
        )
        for stage, row in logs.items()
    ]
    return table(("stage", "what learns", "steps", "canvases a step", "CPU minutes", "seed"), rows)


def matching_table(styles: dict[str, Any]) -> str:
    """A row a kind of falsehood: by threshold and by order in both styles, and the controls by order."""
    old, new = styles[HELD_OUT], styles[NEW]
    order = "matching, order"
    rows = [
        (FALSEHOODS.get(kind, kind), value, new["matching"].get(kind), old[order].get(kind), new[order].get(kind),
         *(old["controls"][control][order].get(kind) for control in ("text alone", "shuffled pairs")))
        for kind, value in old["matching"].items()
    ]  # fmt: skip
    columns = (HELD_OUT, "3-D", f"{HELD_OUT}, by order", "3-D, by order", "text alone", "shuffled pairs")
    return table(("", *columns), rows)


def questions_table(styles: dict[str, Any]) -> str:
    """A row a kind of question: both styles, and the controls."""
    old, new = styles[HELD_OUT], styles[NEW]
    controls = ("text alone", "shuffled pairs", "picture alone")
    rows = [
        (QUESTIONS.get(kind, kind), value, new["questions"].get(kind),
         *(old["controls"][control]["questions"].get(kind) for control in controls))
        for kind, value in old["questions"].items()
    ]  # fmt: skip
    return table(("", HELD_OUT, "3-D", *controls), rows)


def wrong_way(styles: dict[str, Any]) -> str:
    """A sentence on what is told below chance by order, which no guess does."""
    found = [kind for kind, value in styles[HELD_OUT]["matching, order"].items() if value < 40]
    named = ", ".join(FALSEHOODS.get(kind, kind) for kind in found)
    return f"\nBelow 40 by order, so read the other way round rather than not at all: {named}.\n" if found else ""


def no_better(style: dict[str, Any]) -> str:
    """A sentence on the questions that the text alone answers nearly as well, which so show nothing."""
    alone = style["controls"]["text alone"]["questions"]
    found = [QUESTIONS.get(kind, kind) for kind, value in style["questions"].items() if value - alone[kind] < 5]
    return f"Less than 5 points above the text alone, and so shown by nothing: {' '.join(found)} " if found else ""


def retrieval_table(styles: dict[str, Any]) -> str:
    """A row a kind of relation."""
    rows = []
    for part, old in styles[HELD_OUT].items():
        if part.startswith("retrieval, "):
            new = styles[NEW][part]
            keys = ("similarity", "reranked", "among the best 16")
            name = part.partition(", ")[2]
            rows.append((RETRIEVED.get(name, name), *(old[key] for key in keys), *(new[key] for key in keys)))
    columns = ("similarity", "best 16 reranked by matching", "among the best 16")
    return table(("", *(f"{HELD_OUT}: {c}" for c in columns), *(f"3-D: {c}" for c in columns)), rows)


def speech_table(styles: dict[str, Any]) -> str:
    """Captions and written answers."""
    old, new = styles[HELD_OUT], styles[NEW]
    names = {"cider": "CIDEr", "bleu@4": "BLEU-4", "named right": "things named that are there"}
    rows: list[tuple[object, ...]] = [
        (f"captions: {name}", old["captions"][key], new["captions"].get(key))
        for key, name in names.items()
        if key in old["captions"]
    ]
    rows += [(f"answers: {QUESTIONS.get(k, k)}", value, new["answers"].get(k)) for k, value in old["answers"].items()]
    return table(("", HELD_OUT, "3-D"), rows)


def base_card(folder: Path, leakage: dict[str, Any], stages_folder: Path = FOLDER) -> str:
    """The card.

    Args:
        folder: the base's files.
        leakage: from `world.pictures.leakage.measure`.
        stages_folder: with logs and figures.
    """
    fusion, speech = measured(stages_folder)
    logs = stages(stages_folder)
    config = json.loads((folder / "config.json").read_text())
    weights = folder / "model.safetensors"
    with safe_open(weights, "pt") as file:
        count = sum(math.prod(file.get_slice(key).get_shape()) for key in file.keys())  # noqa: SIM118
    used = [style for style, row in leakage["styles"].items() if row["pre_trained"]]
    seconds = sum(row["cpu_seconds"] for row in logs.values())
    unseen = ((f"{FALSEHOODS.get(k, k)} {v}", fusion["styles"][NEW]["novel concepts"].get(k)) for k, v in
              fusion["styles"][HELD_OUT]["novel concepts"].items())  # fmt: skip
    return CARD.format(
        millions=count / 1e6, megabytes=weights.stat().st_size / 1e6, vision=config["vision_config"],
        text=config["text_config"], minutes=seconds / 60, hours=seconds / 7200, stage_table=stage_table(logs),
        pictures=sum(row["pre_trained"] for row in leakage["styles"].values()), seen=leakage["seen"],
        novel=leakage["concepts"] - leakage["seen"], styles=len(used), held_out=HELD_OUT,
        above=", above and below" if "stage4" in logs else "",
        fusion_stage=fusion["stage"], canvases=fusion["canvases"], twins=fusion["twin scenes"],
        matching=matching_table(fusion["styles"]),
        wrong_way=wrong_way(fusion["styles"]), no_better=no_better(fusion["styles"][HELD_OUT]),
        retrieval=retrieval_table(fusion["styles"]),
        questions=questions_table(fusion["styles"]),
        speech_stage=speech["stage"], spoken=speech["canvases"], speech=speech_table(speech["styles"]),
        no_cider="" if "cider" in speech["styles"][HELD_OUT]["captions"] else " were not measured here",
        unseen=", ".join(f"{old} ({HELD_OUT}) / {new} (3-D)" for old, new in unseen),
        drawn=sources_table(DRAWN.values()), words=", ".join(f"{p.name} ({p.licence})" for p in WORDS),
        sha=file_hash(weights),
    )  # fmt: skip
