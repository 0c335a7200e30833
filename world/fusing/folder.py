"""The folder that transformers load: ``python -m world.fusing.folder STAGE4 FOLDER``.

One set of weights for `BlipForImageTextRetrieval`, `BlipForConditionalGeneration` and `BlipForQuestionAnswering`.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from world.backbone import export
from world.fusing.measure import Subject
from world.fusing.measure_speech import read_joint
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
    parser.add_argument("weights", type=Path, help="of the joint stage")
    parser.add_argument("folder", type=Path)
    args = parser.parse_args()
    write(*read_joint(args.weights), args.folder)


if __name__ == "__main__":
    main()
