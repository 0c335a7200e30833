"""The lines in an adapter's model card run as they stand, for every task, on pictures and on videos."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from PIL import Image

import uniadapter as ua
from tiny import randomise

TAGS = {
    ("retrieval", 1): "zero-shot-image-classification",
    ("vqa", 1): "visual-question-answering",
    ("caption", 1): "image-to-text",
    ("retrieval", 2): "feature-extraction",
    ("vqa", 2): "video-text-to-text",
    ("caption", 2): "video-text-to-text",
}


@pytest.mark.parametrize(("task", "frames"), TAGS)
def test_a_cards_lines_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], task: str, frames: int
) -> None:
    monkeypatch.chdir(tmp_path)
    model = ua.load_model("embedded", task)
    randomise(ua.add_adapter(model, ua.AdapterConfig(bottleneck=4, key_value=2)), 0.1)
    answers = ("red", "blue") if task == "vqa" else None
    settings = ua.InferenceSettings(frames=frames, answers=answers, prompt='a "picture" of: #')
    ua.save_adapter(model, "path/to/this/folder", settings=settings)
    card = Path("path/to/this/folder/README.md").read_text()
    front = yaml.safe_load(card.split("---")[1])
    assert front["base_model"] == "embedded"
    assert front["pipeline_tag"] == TAGS[task, frames]
    name = "picture.jpg" if frames == 1 else "video.mp4"
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    assert name in code
    assert f'"{task}"' in code.replace("'", '"')
    if frames == 1:
        Image.linear_gradient("L").convert("RGB").save(name)
    else:  # a folder of frames is a video too
        Path(name).mkdir()
        for number in range(3):
            Image.linear_gradient("L").convert("RGB").rotate(90 * number).save(f"{name}/{number}.png")
    exec(compile(code, "README.md", "exec"), {})
    assert capsys.readouterr().out.strip()


@pytest.mark.parametrize("base", ["it's/mine", 'a "base"', "C:\\models\\blip", "line\nbreak", "# no: [key"])
def test_any_name_of_a_base_stands_in_the_card_as_it_is(tmp_path: Path, base: str) -> None:
    from tiny import tiny_model

    model = tiny_model()
    ua.add_adapter(model, ua.AdapterConfig(bottleneck=4, key_value=2))
    card = (ua.save_adapter(model, tmp_path / "a", base=base) / "README.md").read_text()
    assert yaml.safe_load(card.split("---")[1])["base_model"] == base
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    compile(code, "README.md", "exec")
    assert repr(base) in code
