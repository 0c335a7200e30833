"""The base's vocabulary of whole words: ``python -m world.texts.vocabulary`` writes ``world/texts/vocabulary.txt``.

Words that only the tasks use have a row each that pre-training never touches. Letters and ``##`` letters make any other
word readable, if not understood.
"""

from __future__ import annotations

import string
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor
from transformers import BertTokenizerFast  # type: ignore[attr-defined]

from world.pictures.concepts import read_concepts
from world.pictures.grounds import COLOURS
from world.texts.names import KINDS, NAMES, NUMBERS

FILE = Path(__file__).with_name("vocabulary.txt")
SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", "[ENC]"]
POSITIONS = 64  # tokens of the longest text
WORDS = (
    "a an the of and with is are there it its this that in on at to up down all altogether exactly just side half "
    "corner left right top bottom picture photo image drawing scene we see here shows look show does do you can "
    "what which how many any thing things count where colour ground background front or alone"
)
# Of the tasks: relations, time, and the questions that others wrote.
TASKS = (
    "above below over under higher lower than beneath underneath beside next near between middle centre both "
    "other another no not yes only without zero five first second third last then before after while finally once "
    "twice thrice times time often clip video film moves moving appears appear disappears comes come goes go "
    "start end happens same as circle rectangle triangle shape present contain contains have has color gray teal "
    "big small large little person people man woman her his their they who she he be being by for from "
    "into out off behind against around"
)


def gather() -> list[str]:
    """All words, in the order of their ids."""
    names = " ".join(NAMES.values()).replace("|", " ").replace("*", "")
    kinds = " ".join(" ".join(pair) for pair in KINDS.values())
    known = {*names.split(), *kinds.split(), *WORDS.split(), *COLOURS, *NUMBERS}
    later = {word for word in TASKS.split() if word.isalpha()} - known
    letters = sorted(string.ascii_lowercase + string.digits)
    marks = list("?,.:;!'-()\"")
    pieces = [*letters, *marks, *(f"##{letter}" for letter in letters)]
    return [*SPECIALS, *pieces, *sorted(known - set(pieces)), *sorted(later - set(pieces))]


class Vocabulary:
    """Words to ids, for texts that consist of known words."""

    def __init__(self) -> None:
        self.words = FILE.read_text().splitlines()
        self.id = {word: number for number, word in enumerate(self.words)}

    def __len__(self) -> int:
        """Words."""
        return len(self.words)

    def encode(self, texts: list[list[str]]) -> tuple[Tensor, Tensor]:
        """Ids and mask [S, L] of texts given word by word; the same as the tokenizer's.

        Raises:
            KeyError: a word has no row of its own.
        """
        rows = [[self.id["[CLS]"], *(self.id[word] for word in text), self.id["[SEP]"]] for text in texts]
        longest = max(map(len, rows))
        ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
        return ids, mask


def make_tokenizer() -> BertTokenizerFast:
    """BERT's conventions over these words."""
    ids = {word: number for number, word in enumerate(FILE.read_text().splitlines())}
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))  # type: ignore[call-arg]
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(SPECIALS)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, ids[token]) for token in ("[CLS]", "[SEP]")],
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


def word_starts(vocabulary: Vocabulary, rows: Tensor) -> dict[int, Tensor]:
    """A start for the words of concepts that pre-training sees: what the visual encoder knows them by.

    Args:
        vocabulary: words.
        rows: a unit-variance vector a concept [C, d].

    Returns:
        Word id → mean of the rows of the concepts in whose names it stands, names of many words weighing less [d].
    """
    found: dict[int, list[tuple[float, Tensor]]] = {}
    for number, concept in enumerate(read_concepts()):
        for name in [] if concept.novel else NAMES[concept.name].split("|"):
            words = name.removeprefix("*").split()
            for word in words:
                if word not in WORDS.split():
                    found.setdefault(vocabulary.id[word], []).append((1 / len(words), rows[number]))
    return {
        word: sum(weight * row for weight, row in some) / sum(weight for weight, _ in some)  # type: ignore[misc]
        for word, some in found.items()
    }


if __name__ == "__main__":
    FILE.write_text("\n".join(gather()) + "\n")
