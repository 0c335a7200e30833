"""The folder that transformers load: ``python -m world.fusing.folder STAGE2 STAGE3 FOLDER``.

One set of weights for `BlipForImageTextRetrieval`, `BlipForConditionalGeneration` and `BlipForQuestionAnswering`.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file
from torch import nn

from world.backbone import export
from world.fusing.loop import restore
from world.fusing.measure import Subject, read
from world.fusing.stage3 import Speaker
from world.fusing.vocabulary import make_tokenizer


@dataclass
class Finished:
    """What `world.backbone.export` writes.

    Args:
        retrieval: the base.
        decoder: of captions and answers; an empty module where there is none.
    """

    retrieval: nn.Module
    decoder: nn.Module


def write(subject: Subject, speaker: Speaker | None, folder: Path) -> None:
    """Write the folder."""
    decoder = speaker.decoder if speaker else nn.Module()
    export(Finished(subject.learner.base, decoder), make_tokenizer(), folder)  # type: ignore[arg-type]


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", type=Path)
    parser.add_argument("decoder", type=Path)
    parser.add_argument("folder", type=Path)
    args = parser.parse_args()
    subject = read(args.base)
    speaker = Speaker(subject)
    restore(speaker, load_file(args.decoder))
    write(subject, speaker, args.folder)


if __name__ == "__main__":
    main()
