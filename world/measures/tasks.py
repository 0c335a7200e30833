"""What the pre-trained base says of the tasks before anything is adapted, on their validation splits alone.

    python -m world.measures.tasks world/stages/stage2.safetensors zero_shot.json

Retrieval from text to picture or clip: R@1 by similarity, and after the best 16 were ranked anew by matching; how often
a caption matches its own visual more than the twin (chance 50); by what decides the caption. Questions: by the answer
head that stays behind after pre-training, with the picture and with the mean of all pictures in its place. Clips: the
feature is the mean of those of eight frames, and fusion reads the tokens of all. Novel concepts: scenes drawn as the
test split's are, with another seed, so that the test split stays unread.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from torch import Tensor

from uniadapter.embedded.annotations import read_specifications
from uniadapter.embedded.emoji_clips import prepare_clips, read_clips
from uniadapter.embedded.emoji_scenes import read_scenes
from world.measures.fusion import percent
from world.pictures.canvas import MEAN_PIXEL, STD_PIXEL
from world.pictures.concepts import read_concepts
from world.pictures.sources import CACHE
from world.stages.fused import text_feature, visual_feature
from world.stages.subject import Subject, read
from world.stages.vision import encode
from world.tasks.atlas import painted
from world.tasks.names import task_names
from world.tasks.writing import compose_scenes
from world.texts.questions import Asker

RERANKED, FRAMES = 16, 8
Rows = list[dict[str, Any]]


def words_of(text: str) -> list[str]:
    """A text word by word, as the base's tokenizer takes it apart."""
    return re.findall(r"[a-z0-9]+|[?,.:]", text)


@torch.no_grad()
def tokens_of(subject: Subject, pixels: np.ndarray) -> Tensor:
    """Tokens [V, 37, 192] of pictures uint8 [V, 96, 96, 3]."""
    vision, parts = subject.learner.base.vision_model, []
    for some in np.array_split(pixels, -(-len(pixels) // 100)):
        normal = (torch.from_numpy(some).permute(0, 3, 1, 2).float() / 255 - MEAN_PIXEL) / STD_PIXEL
        parts.append(encode(vision, normal))
    return torch.cat(parts)


def frames_of(path: Path) -> np.ndarray:
    """The middles of `FRAMES` equal segments of a clip, uint8 [T, 96, 96, 3]."""
    with av.open(str(path)) as video:
        every = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
    return np.stack([every[(2 * i + 1) * len(every) // (2 * FRAMES)] for i in range(FRAMES)])


@torch.no_grad()
def retrieval(subject: Subject, rows: Rows, tokens: Tensor, feature: Tensor) -> dict[str, dict[str, float]]:
    """From each caption to its visual, by what decides the caption.

    Args:
        subject: the base.
        rows: specifications with "captions", "about" and "partner".
        tokens: of the visuals, for fusion [V, N, 192].
        feature: of the visuals, for similarity [V, e].
    """
    number = {row["id"]: place for place, row in enumerate(rows)}
    captions = [(row, text, kind) for row in rows for text, kind in zip(row["captions"], row["about"], strict=True)]
    words = [words_of(text) for _, text, _ in captions]
    own = torch.tensor([number[row["id"]] for row, _, _ in captions])
    twin = torch.tensor([number.get(row["partner"], -1) for row, _, _ in captions])
    base = subject.learner.base
    similarity = text_feature(base, *subject.vocabulary.encode(words)) @ feature.t()
    best = similarity.topk(RERANKED, 1).indices
    margins = torch.cat(  # a query at a time, so that its visuals' tokens are laid out once
        [subject.first_states(tokens[row], [[some]] * RERANKED)[1].t() for row, some in zip(best, words, strict=True)]
    )
    first, plain = best.gather(1, margins.argmax(1, keepdim=True))[:, 0], similarity.argmax(1)
    pairs = [[some] for some in words]
    told = subject.first_states(tokens[own], pairs)[1] > subject.first_states(tokens[twin.clamp(min=0)], pairs)[1]
    kinds = [kind for _, _, kind in captions]
    out = {}
    for kind in ["all", *sorted(set(kinds))]:
        mine = torch.tensor([kind in ("all", other) for other in kinds])
        out[kind] = {
            "captions": int(mine.sum()),
            "similarity": percent((plain == own)[mine]),
            "similarity, either twin": percent(((plain == own) | (plain == twin))[mine]),
            "among the best 16": percent((best == own[:, None]).any(1)[mine]),
            "reranked": percent((first == own)[mine]),
            "reranked, either twin": percent(((first == own) | (first == twin))[mine]),
            "matches more than the twin": percent(told[:, 0][mine & (twin >= 0)])
            if (mine & (twin >= 0)).any()
            else 0.0,
        }
    return out


def answered(subject: Subject, rows: Rows, asked: Rows, tokens: Tensor) -> dict[str, dict[str, float]]:
    """Per cent of answers that are right by kind of question; those that the head has no answer for are left out."""
    number = {row["id"]: place for place, row in enumerate(rows)}
    asker, names = Asker(subject.lexicon, []), task_names()
    known = dict(asker.number)
    known |= {names.of[c.code][0]: asker.first_name + n for n, c in enumerate(read_concepts()) if c.code in names.of}
    fit = [row for row in asked if row["answer"] in known]
    places = torch.tensor([number[row["about"]] for row in fit])
    truth = torch.tensor([known[row["answer"]] for row in fit])
    words = [[words_of(row["question"])] for row in fit]
    right = {}
    for name, shown in (("right", tokens), ("without the picture", tokens.mean(0).expand_as(tokens))):
        said = subject.learner.answer(subject.first_states(shown[places], words)[0][:, 0])
        right[name] = said.argmax(1) == truth
    out = {}
    for kind in sorted({row["kind"] for row in fit}):
        mine = torch.tensor([row["kind"] == kind for row in fit])
        out[kind] = {"questions": int(mine.sum()), **{name: percent(some[mine]) for name, some in right.items()}}
    return out


def measure(subject: Subject, tasks: Path) -> dict[str, Any]:
    """All figures.

    Args:
        subject: the base.
        tasks: folder that `python -m world.tasks` wrote.
    """
    base, out = subject.learner.base, {}
    names = task_names()
    novel = compose_scenes("test_novel", names, 1)
    val = read_scenes("val", tasks / "scenes"), read_specifications("scenes", "vqa_val", tasks / "scenes")
    other = [scene.row() for scene in novel.scenes], [question.row() for question in novel.questions]
    for name, (rows, asked) in {"scenes": val, "novel concepts": other}.items():
        tokens = tokens_of(subject, painted(rows, tasks / "scenes"))
        out[name] = {
            "retrieval": retrieval(subject, rows, tokens, visual_feature(base, tokens)),
            "questions": answered(subject, rows, asked, tokens),
        }
    rows, folder = read_clips("val", tasks / "clips"), prepare_clips(tasks.parent / "rendered", tasks / "clips")
    frames = np.stack([frames_of(folder / "videos" / "val" / f"{row['id']}.mp4") for row in rows])
    tokens = tokens_of(subject, frames.reshape(-1, *frames.shape[2:])).view(len(rows), FRAMES, -1, 192)
    feature = torch.stack([visual_feature(base, tokens[:, t]) for t in range(FRAMES)]).mean(0)
    flat = tokens.flatten(1, 2)
    out["clips"] = {
        "retrieval": retrieval(subject, rows, flat, torch.nn.functional.normalize(feature, dim=-1)),
        "questions": answered(subject, rows, read_specifications("clips", "vqa_val", tasks / "clips"), flat),
    }
    return out


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path)
    parser.add_argument("out", type=Path, nargs="?", default=None, help="JSON file; printed where it isn't given")
    parser.add_argument("--tasks", type=Path, default=CACHE / "tasks")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    text = json.dumps(measure(read(args.weights), args.tasks), indent=1) + "\n"
    if args.out:
        args.out.write_text(text)
    else:
        print(text)  # noqa: T201


if __name__ == "__main__":
    main()
