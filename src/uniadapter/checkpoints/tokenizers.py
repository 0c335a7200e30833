"""Find and read the tokenizer of a base, without running code from it, and check its vocabulary."""

from __future__ import annotations

from pathlib import Path

from transformers import AutoTokenizer, BertTokenizer, PreTrainedTokenizerBase

from uniadapter.errors import CheckpointError
from uniadapter.files.messages import first_line
from uniadapter.files.schema import SchemaError, read_json

FILES = ("tokenizer.json", "vocab.txt", "vocab.json", "spiece.model", "tokenizer.model")
# Frequent words of ten languages: a tokenizer that knows few words of each is empty, or not for text.
_ORDINARY = (
    "a the of and in picture red blue black white",
    "de la el que un en y rojo una con",
    "der die und in den von zu das mit rot",
    "le de un et la les une en rouge est",
    "的 一 是 在 有 人 大 中 红 上",
    "の に は を が と で も 赤 人",
    "이 그 는 을 를 의 에 가 한 빨강",
    "и в не на я что он мы это дом",
    "من في على و ما هو أن لا هذا أحمر",
    "और के है में की से का को लाल एक",
)
_ENOUGH_WORDS = 8  # known words of a tokenizer with a small vocabulary of its own, such as the embedded base's


def find_tokenizer(path: Path) -> Path | None:
    """The folder with a base's tokenizer, or None; for a `.pth` file, the folder `tokenizer` beside it or its own."""
    folders = (path,) if path.is_dir() else (path.parent / "tokenizer", path.parent)
    return next((folder for folder in folders if any((folder / file).is_file() for file in FILES)), None)


def read_tokenizer(source: Path) -> PreTrainedTokenizerBase:
    """Read the tokenizer of a folder, or a `vocab.txt`; code in the folder is not run.

    Raises:
        CheckpointError: it is broken; names the file.
    """
    folder = source if source.is_dir() else source.parent
    described = [folder / file for file in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")]
    try:
        if source.is_file() and source.name == "vocab.txt":
            return BertTokenizer(vocab=str(source))
        for file in described:
            if file.is_file() and not isinstance(read_json(file), dict):
                raise CheckpointError(f"{file}: is no tokenizer's: its top level has no keys")
        # A vocabulary without a config does not name its class: it is taken for BERT's.
        kind = AutoTokenizer if (folder / "tokenizer_config.json").is_file() else BertTokenizer
        found: PreTrainedTokenizerBase = kind.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False
        )
        return found
    except CheckpointError:
        raise
    except (SchemaError, OSError) as error:
        raise CheckpointError(f"{source}: no tokenizer could be read ({first_line(error)})") from error
    except Exception as error:  # invalid files make the reader raise anything
        raise CheckpointError(f"{source}: not a readable tokenizer ({type(error).__name__}: {error})") from error


def check_vocabulary(tokenizer: PreTrainedTokenizerBase, vocabulary: int, where: str) -> None:
    """Refuse a tokenizer that has ids without an embedding, or that maps ordinary words to [UNK].

    Args:
        tokenizer: to check.
        vocabulary: number of the model's token embeddings.
        where: the file or folder that it was read from, for the error.

    Raises:
        CheckpointError: it does not fit the model, or does not work.
    """
    try:
        highest = max(tokenizer.get_vocab().values(), default=-1)
        fault = ""
        if highest >= vocabulary:
            fault = f"has {highest + 1} words, where the model has embeddings for {vocabulary}"
        fault = fault or unknown_words_fault(tokenizer)
    except Exception as error:  # of a tokenizer that cannot even tokenise
        raise CheckpointError(f"{where}: its tokenizer fails on a text ({type(error).__name__}: {error})") from error
    if fault:
        raise CheckpointError(f"{where}: its tokenizer {fault}; take the one that the base came with")


def unknown_words_fault(tokenizer: PreTrainedTokenizerBase) -> str:
    """A description of the fault if ordinary words become the unknown token; empty if they do not."""
    unknown = tokenizer.unk_token_id
    for words in _ORDINARY:
        ids = tokenizer(words.split(), add_special_tokens=False).input_ids
        if sum(bool(row) and unknown not in row for row in ids) >= len(ids) / 2:
            return ""
    special = set(tokenizer.all_special_tokens)
    own = [w for w in tokenizer.get_vocab() if len(w) > 1 and w.isalnum() and w not in special][:1000]
    ids = tokenizer(own, add_special_tokens=False).input_ids if own else []
    if sum(bool(row) and unknown not in row for row in ids) >= _ENOUGH_WORDS:
        return ""
    return f"knows {len(tokenizer)} words and makes [UNK] of nearly all that people write"
