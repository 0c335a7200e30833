"""Training in one call from Python: whatever holds pictures and texts, and what it leaves."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import BlipForConditionalGeneration, BlipForQuestionAnswering, PreTrainedTokenizerBase

import uniadapter as ua
from squares import COLOURS, captions, save_base, save_pictures
from tiny import tiny_model
from uniadapter.config import RunConfig
from uniadapter.config.training import ObjectiveConfig
from uniadapter.data.in_memory import make_split

SMALL = ua.AdapterConfig(bottleneck=4, key_value=4)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_base(tmp_path_factory.mktemp("base")))


@pytest.fixture(scope="module")
def tokenizer(base: str) -> PreTrainedTokenizerBase:
    return ua.load_tokenizer(base)


def pictures() -> list[tuple[Image.Image, str]]:
    return [(Image.new("RGB", (40, 30), colour), f"a {name} square") for name, colour in COLOURS.items()]


class Table:
    """A Hugging Face dataset, as far as it is used: columns by name, rows by number."""

    def __init__(self, columns: dict[str, list[Any]], decoded: list[int] | None = None) -> None:
        self.columns, self.column_names = columns, list(columns)
        self.decoded = [] if decoded is None else decoded

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, str):
            return self.columns[key]
        if "image" in self.columns:
            self.decoded.append(key)
        return {name: values[key] for name, values in self.columns.items()}

    def remove_columns(self, name: str) -> Table:
        return Table({other: values for other, values in self.columns.items() if other != name})


def kinds(folder: Path) -> dict[str, Any]:
    """The same eight pictures and captions, in every form."""
    rows = pictures()
    names = save_pictures(folder)
    listed = [{"file_name": name, "text": text} for name, (_, text) in zip(names, rows, strict=True)]
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in listed))
    return {
        "tuples": rows,
        "mappings": [{"image": image, "caption": text} for image, text in rows],
        "arrays": [(np.asarray(image), text) for image, text in rows],
        "tensors": [(torch.from_numpy(np.asarray(image) / 255.0).permute(2, 0, 1), text) for image, text in rows],
        "paths": [(folder / name, text) for name, (_, text) in zip(names, rows, strict=True)],
        "names": [{"path": str(folder / name), "sentence": text} for name, (_, text) in zip(names, rows, strict=True)],
        "table": Table({"image": [image for image, _ in rows], "text": [text for _, text in rows]}),
        "tables": {"train": Table({"image": [image for image, _ in rows], "caption": [text for _, text in rows]})},
        "imagefolder": folder,
        "file": str(folder / "metadata.jsonl"),
    }


def test_every_form_of_data_is_one_split(tmp_path: Path) -> None:
    for name, data in kinds(tmp_path).items():
        split = make_split(data, "retrieval", RunConfig().data)
        assert split.texts == [text for _, text in pictures()], name
        assert (len(split.visuals), split.text_visual) == (8, list(range(8))), name
        assert make_split(split, "retrieval", RunConfig().data) is split


def test_training_leaves_a_history_and_an_adapter_that_loads(base: str, tmp_path: Path) -> None:
    model = ua.load_model(base)
    trained = ua.train(
        model,
        pictures(),
        validation=pictures(),
        adapter=SMALL,
        output=tmp_path / "run",
        epochs=3,
        batch_size=4,
        lr=1e-2,
    )
    assert trained.model is model
    assert (trained.steps, trained.history[-1]["step"]) == (6, 6)
    assert {"loss", "contrastive", "matching", "lr"} <= set(trained.history[-1])
    assert 0 <= (trained.validation or 0) <= 100
    assert not model.training
    fresh = ua.load_model(base)
    assert trained.folder is not None
    ua.load_adapter(fresh, trained.folder)
    picture = pictures()[0][0]
    assert torch.equal(ua.image_features(fresh, picture).feature, ua.image_features(model, picture).feature)
    with ua.disable_adapter(model):
        assert not torch.equal(ua.image_features(model, picture).feature, ua.image_features(fresh, picture).feature)
    assert "steps=6" in repr(trained)
    with pytest.raises(ValueError, match="overwrite"):
        ua.train(model, pictures(), output=tmp_path / "run", max_steps=1)


def test_in_memory_and_from_files_train_alike(base: str, tmp_path: Path) -> None:
    found = []
    for name, data in kinds(tmp_path).items():
        if name in ("tuples", "table", "imagefolder"):
            trained = ua.train(base, data, adapter=SMALL, max_steps=2, batch_size=4, seed=3)
            assert trained.folder is None
            found.append([p.detach() for p in ua.adapter_set(trained.model).parameters()])
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


def test_the_active_adapter_is_trained_further(base: str, tokenizer: PreTrainedTokenizerBase) -> None:
    model = ua.load_model(base)
    for name in ("a", "b"):
        ua.add_adapter(model, SMALL, name)
    before = {name: [p.detach().clone() for p in ua.adapter_set(model, name).parameters()] for name in "ab"}

    def moved() -> set[str]:
        now = {name: list(ua.adapter_set(model, name).parameters()) for name in "ab"}
        return {n for n in "ab" if any(not torch.equal(p, q) for p, q in zip(now[n], before[n], strict=True))}

    with ua.active_adapter(model, "a"):
        ua.train(model, pictures(), tokenizer=tokenizer, max_steps=2, batch_size=4)
    assert moved() == {"a"}
    ua.train(model, pictures(), tokenizer=tokenizer, adapter="b", max_steps=2, batch_size=4)
    assert moved() == {"a", "b"}
    ua.train(model, pictures(), tokenizer=tokenizer, adapter=SMALL, max_steps=1, batch_size=4)
    assert ua.adapter_names(model) == ["a", "b", "default"]


def questions(answer: str = "answer") -> list[dict[str, Any]]:
    return [
        {"image": image, "question": "What square?", answer: text.split()[1]} for image, text in pictures()
    ]  # fmt: skip


@pytest.mark.parametrize(
    "data",
    [
        questions(),
        [(row["image"], row["question"], row["answer"]) for row in questions()],
        [{**row, "answers": [{"answer": row["answer"]}] * 10, "answer": None} for row in questions()],
    ],
)
def test_questions(tokenizer: PreTrainedTokenizerBase, data: Sequence[Any]) -> None:
    model = tiny_model(BlipForQuestionAnswering)
    trained = ua.train(model, data, tokenizer=tokenizer, validation=data, adapter=SMALL, max_steps=2, batch_size=4)
    assert trained.steps == 2
    assert trained.validation is not None
    assert torch.isfinite(torch.tensor(trained.history[-1]["loss"]))


def test_questions_of_a_dataset_do_not_decode_its_pictures() -> None:
    decoded: list[int] = []
    rows = questions()
    table = Table({name: [row[name] for row in rows] for name in rows[0]}, decoded)
    split = make_split(table, "vqa", RunConfig(task="vqa").data)
    assert split.texts == ["what square?"] * 8
    assert len(decoded) <= 2


def test_captions(tokenizer: PreTrainedTokenizerBase) -> None:
    model = tiny_model(BlipForConditionalGeneration)
    rows = [{"image": image, "caption": captions(name)} for (image, _), name in zip(pictures(), COLOURS, strict=True)]
    trained = ua.train(model, rows, tokenizer=tokenizer, adapter=SMALL, epochs=1, batch_size=8)
    assert trained.steps == 2, "two captions a picture"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ([], "is empty"), (3, "cannot train on a int"), (iter([1]), "cannot train on a list_iterator"),
        (None, "cannot train on"),
        ([1, 2], "row 0 is a int"), ([("a",)], "row 0 has 1 values"), ([{"image": "a.png"}], "no column 'caption'"),
        ([{"caption": "a"}], "no column 'image'"), ({"test": []}, "no split 'train'"), ("nowhere.jsonl", "nowhere"),
        ([("nowhere.png", "a square")], "nowhere.png"), ([(Image.new("L", (9, 9)), 3)], "should hold a string"),
    ],
)  # fmt: skip
def test_what_is_no_data_is_one_line(base: str, data: Any, said: str) -> None:
    with pytest.raises((TypeError, ValueError), match=said) as caught:
        ua.train(base, data, adapter=SMALL)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) <= 300


def test_settings_that_do_not_fit_are_refused(base: str, tokenizer: PreTrainedTokenizerBase) -> None:
    for more, said in (
        ({"task": "captions"}, "task is 'captions'"), ({"lr": -1.0}, "lr"), ({"epochs": 0}, "epochs"),
        ({"adapter": "nobody"}, "nobody"),
    ):  # fmt: skip
        with pytest.raises((ValueError, KeyError), match=said):
            ua.train(base, pictures(), **more)
    with pytest.raises(ValueError, match="leave task out"):
        ua.train(ua.load_model(base), pictures(), task="vqa")
    with pytest.raises(TypeError, match="Linear cannot be adapted: no family of models"):
        ua.train(torch.nn.Linear(2, 2), pictures(), tokenizer=tokenizer)  # type: ignore[arg-type]
    config = RunConfig(objective=ObjectiveConfig(queue_size=0, momentum=0.0, matching=False))
    assert "matching" not in ua.train(base, pictures(), config=config, adapter=SMALL, max_steps=1).history[-1]
