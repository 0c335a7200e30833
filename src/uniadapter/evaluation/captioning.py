"""CIDEr and BLEU-4 of captions, as the COCO caption evaluation computes them.

The scorers are those of `pycocoevalcap` (CIDEr-D, Vedantam et al., arXiv 1411.5726; BLEU, Papineni et al.,
ACL 2002), which need neither pycocotools nor Java. Published figures use the words of Stanford's PTBTokenizer, a
Java program inside that package. Without Java a simple tokenizer is used, and named in the scores: figures of different
tokenizers must not be compared.
"""

from __future__ import annotations

import importlib
import logging
import re
import shutil
import subprocess
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from uniadapter.data.layouts.records import DataError

logger = logging.getLogger(__name__)

Tokenizer = Literal["ptb", "simple"]
Key = TypeVar("Key", bound=Hashable)

INSTALL = 'pip install "uniadapter[caption]"'
_NAMED = 5  # most pictures that an error names
# The evaluation's list of punctuation (its brackets are -LRB-, -RRB-, -LCB-, -RCB-), where it stands free.
_LOOSE_MARK = re.compile(r"(?<!\w)[-'`\".?!,:;(){}]|[-'`\".?!,:;(){}](?!\w)")


@dataclass(frozen=True)
class CaptionScores:
    """Scores of a set of captions.

    Args:
        cider: 100 × CIDEr-D, which is at most 10: so 0..1000, good models about 130 on COCO.
        bleu4: 100 × BLEU-4 of the whole set, 0..100.
        tokenizer: how captions are split into words: "ptb" as in published figures, or "simple".
        cider_each: 100 × CIDEr-D of every picture, in the order of the references; for paired comparisons.
    """

    cider: float
    bleu4: float
    tokenizer: Tokenizer
    cider_each: tuple[float, ...]


def caption_scores(
    predictions: Mapping[Key, str],
    references: Mapping[Key, Sequence[str]],
    tokenizer: Literal["auto", "ptb", "simple"] = "auto",
) -> CaptionScores:
    """CIDEr and BLEU-4 of one caption for each picture against reference captions.

    CIDEr weights words by their inverse document frequency in the *given* references, so it depends on the whole set:
    for a single picture it is 0, and the score of a subset is not comparable to the set's. A caption of fewer than four
    words has no 4-grams and cannot reach the maximum.

    Args:
        predictions: from picture to caption, for exactly the pictures of `references`.
        references: from picture to one or more captions.
        tokenizer: "auto" is "ptb" if `java` is installed, else "simple" with a warning.

    Raises:
        ImportError: `pycocoevalcap` is not installed.
        DataError: the pictures of predictions and references differ, a picture has no reference, there are no pictures,
            or no reference has a word.
        OSError: Java is missing (with "ptb"), or fails.
    """
    _same_pictures(predictions, references)
    cider, bleu = _scorer("cider.cider", "Cider"), _scorer("bleu.bleu", "Bleu")
    chosen = _choose(tokenizer)
    split = {"ptb": tokenize_ptb, "simple": tokenize_simple}[chosen]
    words = iter(
        split([*(predictions[key] for key in references), *(one for each in references.values() for one in each)])
    )
    given = {index: [next(words)] for index in range(len(references))}
    wanted = {index: [next(words) for _ in each] for index, each in enumerate(references.values())}
    if not any(text for each in wanted.values() for text in each):
        raise DataError("no reference caption has a word in it: there is nothing to compare with", "empty caption")
    mean, each = cider(n=4).compute_score(wanted, given)
    bleus, _ = bleu(n=4).compute_score(wanted, given, verbose=0)
    return CaptionScores(
        100.0 * float(mean), 100.0 * float(bleus[3]), chosen, tuple(100.0 * float(one) for one in each)
    )


def tokenize_simple(captions: Sequence[str]) -> list[str]:
    """Lower case, with the marks ``' ` " . ? ! , : ; - ( ) { }`` removed unless both neighbours are letters or digits.

    So "hot-dogs", "2.5" and "dog's" stay whole. PTBTokenizer differs: it splits "dog's" into "dog 's" and
    "can't" into "ca n't", and leaves brackets as words ("-lrb-").

    Returns:
        For each caption its words, joined by single spaces.
    """
    return [" ".join(_LOOSE_MARK.sub(" ", caption.lower()).split()) for caption in captions]


def tokenize_ptb(captions: Sequence[str]) -> list[str]:
    """Stanford's PTBTokenizer without punctuation, as the COCO evaluation calls it.

    The class for it in `pycocoevalcap` gives the same words, but writes into the package's folder, depends on the
    locale and does not notice that Java failed.

    Returns:
        For each caption its words, joined by single spaces.

    Raises:
        ImportError: `pycocoevalcap` is not installed.
        OSError: `java` is missing, or fails.
    """
    package = _module("tokenizer.ptbtokenizer")
    jar = Path(package.__file__).with_name(package.STANFORD_CORENLP_3_4_1_JAR)
    lines = "\n".join(" ".join(caption.split()) for caption in captions)  # a line must be one caption
    program = ["java", "-cp", str(jar), "edu.stanford.nlp.process.PTBTokenizer"]
    options = ["-preserveLines", "-lowerCase", "-encoding", "UTF-8"]
    advice = "install a Java runtime, or choose the simple tokenizer"
    try:
        result = subprocess.run(
            [*program, *options], input=lines.encode(errors="replace"), capture_output=True, check=True
        )
    except FileNotFoundError:
        raise OSError(f"PTBTokenizer needs java, which was not found: {advice}") from None
    except subprocess.CalledProcessError as error:
        reason = " ".join(error.stderr.decode(errors="replace").split())[:200]
        raise OSError(f"PTBTokenizer failed ({reason}): {advice}") from None
    found = result.stdout.decode().split("\n")
    found = found[: len(captions)] if not any(found[len(captions) :]) else found  # after the last line end
    if len(found) != len(captions):
        raise OSError(f"PTBTokenizer returned {len(found)} lines for {len(captions)} captions: {advice}")
    marks = frozenset(package.PUNCTUATIONS)
    return [" ".join(word for word in line.split(" ") if word and word not in marks) for line in found]


def _choose(tokenizer: Literal["auto", "ptb", "simple"]) -> Tokenizer:
    if tokenizer != "auto":
        return tokenizer
    if shutil.which("java") is not None:
        return "ptb"
    logger.warning("java was not found: captions are split by the simple tokenizer, not as in published figures")
    return "simple"


def _same_pictures(predictions: Mapping[Key, str], references: Mapping[Key, Sequence[str]]) -> None:
    if not references:
        raise DataError("scores of no captions: the split is empty", "empty split")
    lacking = [key for key in references if key not in predictions]
    extra = [key for key in predictions if key not in references]
    without = [key for key, each in references.items() if not each]
    texts = [key for key, each in references.items() if isinstance(each, str)]  # whose letters would be captions
    for keys, fault in (
        (lacking, "have no caption to score"),
        (extra, "have a caption but are not in the references"),
        (texts, "have a text for a list of reference captions"),
        (without, "have no reference caption"),
    ):
        if keys:
            names = ", ".join(str(key) for key in keys[:_NAMED]) + (", …" if len(keys) > _NAMED else "")
            raise DataError(f"{len(keys)} pictures {fault} ({names}): are both of one split?", "other pictures")


def can_score() -> bool:
    """Whether the scorers are installed."""
    try:
        require_scorer()
    except ImportError:
        return False
    return True


def require_scorer() -> None:
    """Raise `ImportError`, which says what to install, if the scorers are not installed."""
    _module("cider.cider")


def _scorer(module: str, name: str) -> Any:
    return getattr(_module(module), name)


def _module(name: str) -> Any:
    """Import a submodule of `pycocoevalcap`; unlike its top level, these do not need pycocotools."""
    try:
        return importlib.import_module(f"pycocoevalcap.{name}")
    except ImportError as error:
        raise ImportError(
            f"caption scores need pycocoevalcap ({error}): {INSTALL}, or pip install pycocoevalcap --no-deps"
        ) from None
