"""easy-VQA, a public dataset of questions about single shapes, from its Python package (the extra `easy-vqa`).

Victor Zhou, github.com/vzhou842/easy-VQA (MIT): 4,000 training and 1,000 test pictures of 64 x 64 pixels, 38,575 and
9,673 questions. It has no validation split, so the last tenth of the training pictures is used for it.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

from uniadapter.config import ConfigError
from uniadapter.embedded.cached_folders import fingerprint, prepare_folder

VALIDATION_FROM = 3600  # id of the first validation picture
VERSION = "1"  # part of the fingerprint: raise it when the annotations change


def package_data() -> Path:
    """The data folder of the `easy_vqa` package.

    Raises:
        ConfigError: it is not installed.
    """
    spec = importlib.util.find_spec("easy_vqa")
    if spec is None or spec.origin is None:
        raise ConfigError('easy-VQA is not installed: pip install "uniadapter[easy-vqa]", or pip install easy-vqa')
    return Path(spec.origin).parent / "data"


def answer_type(answer: str) -> str:
    """The answer type: "yes/no", "shape" or "color"."""
    if answer in ("yes", "no"):
        return "yes/no"
    return "shape" if answer in ("circle", "rectangle", "triangle") else "color"


def _rows(source: Path, part: str) -> list[dict[str, Any]]:
    questions = json.loads((source / part / "questions.json").read_text(encoding="utf-8"))
    return [
        {"image": f"images/{part}/{picture}.png", "question": question, "answer": answer, "question_id": number,
         "answer_type": answer_type(answer), "image_id": f"{part}/{picture}", "number": picture}
        for number, (question, answer, picture) in enumerate(questions)
    ]  # fmt: skip


def prepare_easy_vqa(root: Path) -> Path:
    """Write `train.json`, `val.json`, `test.json` and `images/` into `root/easy_vqa` unless it is up to date.

    Raises:
        ConfigError: the package is not installed.
    """
    source = package_data()

    def write(target: Path) -> None:
        for part in ("train", "test"):
            shutil.copytree(source / part / "images", target / "images" / part)
        rows = _rows(source, "train")
        splits = {
            "train": [row for row in rows if row["number"] < VALIDATION_FROM],
            "val": [row for row in rows if row["number"] >= VALIDATION_FROM],
            "test": _rows(source, "test"),
        }
        for name, content in splits.items():
            (target / f"{name}.json").write_text(json.dumps(content, indent=0) + "\n", encoding="utf-8")

    names = [f"{part}/questions.json" for part in ("train", "test")]
    return prepare_folder(Path(root) / "easy_vqa", fingerprint(source, names, VERSION), write)
