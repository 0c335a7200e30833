"""The joint stage of the embedded base's pre-training: what moves, and how fast; what it speaks of."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("world", reason="the scripts that build the assets come with the repository alone")
from safetensors.torch import load_file
from world.pictures.canvas import Painter
from world.pictures.concepts import read_concepts
from world.pictures.grounds import named_grounds
from world.pictures.sprites import STILL, TILE, make_sprites
from world.stages.bank import layout
from world.stages.loop import optimisers
from world.stages.stage2 import Texts
from world.stages.stage4 import SHARES, Joint, Live, arguments, losses, train
from world.stages.subject import read
from world.stages.vision import PATCH
from world.texts.captions import BOTH
from world.texts.names import Lexicon
from world.texts.questions import Asker
from world.texts.truths import Scene

ROOT = Path(__file__).parent.parent / "world" / "stages"
CONCEPTS = read_concepts()
LEXICON = Lexicon(CONCEPTS)
SEEN = [number for number, concept in enumerate(CONCEPTS) if not concept.novel]


class Squares(Live):
    """Canvases whose drawings are squares of one colour each; all else is the real one."""

    def __init__(self, batch: int, more: int) -> None:
        Texts.__init__(self, LEXICON, SEEN, BOTH)
        self.batch, self.more, self.seed, self.number = batch, more, 0, 0
        colours = torch.randint(0, 256, (len(LEXICON), 3), generator=torch.Generator().manual_seed(1))
        pictures = torch.full((len(LEXICON), 4, TILE, TILE), 255, dtype=torch.uint8)
        pictures[:, :3] = colours.to(torch.uint8)[:, :, None, None]
        sprites = make_sprites(pictures, np.arange(len(LEXICON)), len(LEXICON), 1, STILL, 0)
        ground, names = named_grounds(20, 0)
        self.painter = Painter(sprites, ground, PATCH, names)


@pytest.fixture(scope="module")
def joint() -> Joint:
    return Joint(read(ROOT / "stage2.safetensors"), load_file(ROOT / "stage3.safetensors"))


def test_every_part_gets_a_gradient_but_the_patch_embedding(joint: Joint) -> None:
    found, right = losses(joint, Squares(4, 2), 3)
    again, _ = losses(joint, Squares(4, 2), 3)
    assert {name: loss.item() for name, loss in found.items()} == {name: loss.item() for name, loss in again.items()}
    assert 0 < right["match_right"] <= 1
    sum(found.values()).backward()  # type: ignore[union-attr]
    moved = {name for name, p in joint.named_parameters() if p.grad is not None and bool(p.grad.abs().sum() > 0)}
    for part in ("learner.base.vision_model.encoder", "learner.base.text_encoder", "learner.answer", "speaker.decoder"):
        assert any(name.startswith(part) for name in moved), part
    assert not any("patch_embedding" in name for name in moved)
    joint.zero_grad(set_to_none=True)


def test_rates_by_part(joint: Joint) -> None:
    rates: dict[int, float] = {}
    for optimiser, peak in zip(optimisers(joint, 1e-3, 1e-2, SHARES), (1e-3, 1e-2), strict=True):
        rates |= {id(p): g["peak"] / peak for g in optimiser.param_groups for p in g["params"]}
    for name, parameter in joint.named_parameters():
        if parameter.requires_grad:
            share = 0.125 if ".vision_model." in name else 0.5 if name.startswith("learner.") else 1.0
            assert rates[id(parameter)] == pytest.approx(share), name


def test_a_run_taken_up_again_is_the_run_that_never_stopped(tmp_path: Path) -> None:
    def run(folder: str, *stops: int) -> dict[str, torch.Tensor]:
        for stop in stops:
            args = arguments().parse_args(
                ["--out", str(tmp_path / folder), "--base", "-", "--decoder", "-", "--steps", "3", "--stop", str(stop),
                 "--no-bf16", "--save_every", "2", "--log_every", "1"]
            )  # fmt: skip
            start = Joint(read(ROOT / "stage2.safetensors"), load_file(ROOT / "stage3.safetensors"))
            train(args, start, Squares(3, 1))
        return torch.load(tmp_path / folder / "checkpoint.pt", weights_only=True)["model"]

    whole, parts = run("whole", 3), run("parts", 1, 3)
    began = Joint(read(ROOT / "stage2.safetensors"), load_file(ROOT / "stage3.safetensors")).state_dict()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    assert all(
        any(not torch.equal(whole[name], began[name]) for name in whole if name.startswith(part))
        for part in ("learner.base.vision_model.encoder", "learner.base.text_encoder", "speaker.decoder")
    )


def test_questions_of_both_axes() -> None:
    asker, rng = Asker(LEXICON, SEEN, "xy"), random.Random(0)
    said: set[str] = set()
    for number in range(300):
        scene = Scene(layout(SEEN, LEXICON, 2 + number % 3, rng))
        asked = asker(scene, rng, "relation")
        beside = asker(scene, rng, "beside")
        said |= set(asked.saying.words) if asked else set()
        said |= set(beside.saying.words) if beside else set()
        if beside:  # the thing asked for is the only one on that side
            answer = beside.answer - asker.first_name
            assert answer in scene.concepts
    assert {"left", "right", "above", "below"} <= said
