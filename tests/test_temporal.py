"""The temporal embedding: where it starts, who owns it, and that full fine-tuning can have one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel

from families.tiny_blip2 import tiny_blip2
from families.tiny_models import tiny_clip
from test_commands import base, write_run  # noqa: F401 - a fixture
from test_video_commands import own
from tiny import randomise, tiny_model, tiny_texts
from uniadapter.app.cli import main
from uniadapter.checkpoints.adapter_folder import save_adapter
from uniadapter.checkpoints.adapters import add_adapter, load_adapter
from uniadapter.checkpoints.loading import load_model
from uniadapter.config import AdapterConfig, ConfigError
from uniadapter.errors import CheckpointError
from uniadapter.model.dispatch import adapter_store, backbone
from uniadapter.model.encoding import encode_text, encode_visual, fuse
from uniadapter.model.frame_attention import frame_weights
from uniadapter.model.sets import disable_adapter
from uniadapter.model.temporal import OWN, first_values, own_embedding, temporal_embedding

LEFT_TO_RIGHT = {"bottleneck": 4, "key_value": 4, "temporal_init": "left_to_right"}


def naive_start(model: PreTrainedModel, frames: int) -> Tensor:
    """A line fitted by numpy through the tokens of a grey picture, column by column."""
    size, patch = backbone(model).layout.image_size, backbone(model).layout.patch_size
    side = size // patch
    adapter_store(model)
    with torch.no_grad(), disable_adapter(model):
        tokens = encode_visual(model, torch.zeros(1, 1, 3, size, size)).tokens[0, 0, 1:].numpy()
    columns = np.tile(np.arange(side), side)
    slope = np.polyfit(columns, tokens, 1)[0]  # a column further to the right
    return torch.tensor(np.stack([(t - (frames - 1) / 2) * 2 * side * slope for t in range(frames)]))[None].float()


@pytest.mark.parametrize("model", [tiny_model(image=64), tiny_blip2(image=64)], ids=["blip", "blip2"])
@pytest.mark.parametrize("frames", [1, 2, 5])
def test_left_to_right_is_the_bases_own_slope_over_columns(model: PreTrainedModel, frames: int) -> None:
    expected = naive_start(model, frames)
    torch.testing.assert_close(first_values(model, frames, "left_to_right"), expected, atol=1e-5, rtol=1e-4)
    name = f"of{frames}"
    built = add_adapter(model, AdapterConfig(**LEFT_TO_RIGHT, temporal_frames=frames), name)  # type: ignore[arg-type]
    torch.testing.assert_close(built.time.detach(), expected, atol=1e-5, rtol=1e-4)
    assert built.time.requires_grad
    randomise(built)
    again = first_values(model, frames, "left_to_right")
    torch.testing.assert_close(again, expected, atol=1e-5, rtol=1e-4, msg="adapters have no part in it")


def test_zeros_is_the_default_and_training_mode_is_kept() -> None:
    model = tiny_model().train()
    assert not add_adapter(model, AdapterConfig(bottleneck=4, temporal_frames=3)).time.any()
    first_values(model, 3, "left_to_right")
    assert model.training


def test_a_saved_embedding_is_loaded_and_not_started_anew(tmp_path: Path) -> None:
    model = tiny_model()
    built = add_adapter(model, AdapterConfig(**LEFT_TO_RIGHT, temporal_frames=3))  # type: ignore[arg-type]
    randomise(built)
    folder = save_adapter(model, tmp_path / "a")
    loaded = load_adapter(tiny_model(), folder)
    assert loaded.config.temporal_init == "left_to_right"
    assert torch.equal(loaded.time, built.time)


def test_the_order_of_frames_changes_what_is_fused() -> None:
    generator = torch.Generator().manual_seed(0)
    frames = torch.randn(1, 3, 3, 32, 32, generator=generator)
    clips = torch.cat([frames, frames.flip(1)])
    pairs = torch.tensor([[0, 0], [0, 1]])
    model = tiny_model()
    adapter_store(model)

    def both() -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            one, other = fuse(model, encode_text(model, *tiny_texts(1)), encode_visual(model, clips), pairs)
        return one, other

    torch.testing.assert_close(*both(), msg="without, the frames of a video are a bag")
    own_embedding(model, first_values(model, 3, "left_to_right"))
    one, other = both()
    assert (one - other).abs().max() > 1e-3


def test_the_models_own_and_the_sets_are_added_up_and_interpolated() -> None:
    model = tiny_model()
    assert temporal_embedding(model, 4) is None
    own_embedding(model, torch.randn(1, 2, 32))
    built = add_adapter(model, AdapterConfig(bottleneck=4, temporal_frames=4))
    randomise(built)
    mine = model.get_parameter(OWN)[0]
    wide = torch.stack([mine[0], mine[0] * 0.75 + mine[1] * 0.25, mine[0] * 0.25 + mine[1] * 0.75, mine[1]])[None]
    found = temporal_embedding(model, 4)
    assert found is not None
    torch.testing.assert_close(found, wide + built.time)
    with disable_adapter(model):
        torch.testing.assert_close(temporal_embedding(model, 4), wide)


def test_full_fine_tuning_has_one_that_is_trained_saved_and_evaluated(
    tmp_path: Path,
    base: Path,  # noqa: F811
) -> None:
    run = write_run(tmp_path, base, own(tmp_path), data={"frames": 3}, train={"epochs": 1, "lr": 1e-3})
    ways = ["--model.method", "full", "--model.adapter.temporal_frames", "3"]
    ways += ["--model.adapter.temporal_init", "left_to_right"]
    assert main(["train", str(run), *ways]) == 0
    saved = load_file(tmp_path / "run/model/model.safetensors")[OWN]
    start = first_values(load_model(str(base)), 3, "left_to_right")
    assert saved.shape == start.shape
    assert 0 < (saved - start).abs().max() < 0.1
    rows = json.loads((tmp_path / "run/metrics.json").read_text())["rows"]
    trained = next(row for row in rows if row["method"] == "full_fine_tuning")
    again = ["--adapter", str(tmp_path / "run"), "--output", str(tmp_path / "again")]
    assert main(["evaluate", str(run), *again]) == 0
    measured = json.loads((tmp_path / "again/metrics.json").read_text())["rows"][0]
    assert measured["text_to_video"] == trained["text_to_video"]
    assert measured["method"] == "full_fine_tuning"


@pytest.mark.parametrize(
    ("broken", "said"),
    [(torch.zeros(1, 3, 8), "[1, frames, 32]"), (torch.full((1, 3, 32), torch.nan), "NaN"), (torch.zeros(3), "[3]")],
)
def test_a_broken_one_in_a_models_file_is_named(
    tmp_path: Path,
    base: Path,  # noqa: F811
    broken: Tensor,
    said: str,
) -> None:
    folder = tmp_path / "model"
    load_model(str(base)).save_pretrained(folder)
    weights = load_file(folder / "model.safetensors")
    save_file({**weights, OWN: broken}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError) as error:
        load_model(folder)
    assert said in str(error.value)
    assert str(folder) in str(error.value)


def test_two_towers_have_nothing_to_read_it() -> None:
    with pytest.raises(ConfigError, match="nothing in this base reads a video's tokens together: set it to 0"):
        first_values(tiny_clip(), 3, "zeros")


def test_a_lower_temperature_tells_frames_apart() -> None:
    generator = torch.Generator().manual_seed(0)
    model = tiny_model()
    visuals = encode_visual(model, torch.randn(2, 3, 3, 32, 32, generator=generator))
    texts, pairs = encode_text(model, *tiny_texts(2)), torch.tensor([[0, 0], [1, 1]])
    assert backbone(model).frame_temperature == 4
    found = []
    for temperature in (None, 4.0, 0.1):
        shape = {"bottleneck": 4, "frame_aware": True, "frame_temperature": temperature}
        add_adapter(model, AdapterConfig(**shape), f"at {temperature}".replace(".", "_"))  # type: ignore[arg-type]
        with torch.no_grad():
            found.append(fuse(model, texts, visuals, pairs))
    assert torch.equal(found[0], found[1])
    assert not torch.allclose(found[0], found[2])
    assert backbone(model).frame_temperature == 0.1
    sharp, flat = (frame_weights(texts.feature, visuals.frames, one) for one in (0.1, 4.0))
    assert sharp.std(-1).min() > flat.std(-1).max()
