"""One call for features, one for scores; on the embedded base and real rendered pictures."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

import uniadapter as ua
from squares import save_pictures
from uniadapter.data.layouts.records import DataError


@pytest.fixture(scope="module")
def base() -> tuple[object, object]:
    return ua.load_model(), ua.load_tokenizer()


def test_features_and_scores_agree_with_one_pair_at_a_time(tmp_path: Path, base: tuple[object, object]) -> None:
    model, tokenizer = base
    files = [tmp_path / name for name in save_pictures(tmp_path)[:3]]
    texts = ["A red square!", "something blue, on the left of a long list of other things"]
    visuals, encoded = ua.image_features(model, files), ua.text_features(model, tokenizer, texts)
    assert torch.allclose(visuals.feature.norm(dim=1), torch.ones(3), atol=1e-5)
    all_scores = ua.pair_scores(model, tokenizer, visuals, encoded)
    assert all_scores.shape == (2, 3)
    for text in range(2):
        for image in range(3):
            alone = ua.pair_scores(model, tokenizer, [Image.open(files[image])], [texts[text]])
            assert float(alone[0, 0]) == pytest.approx(float(all_scores[text, image]), abs=1e-5)
    some = ua.pair_scores(model, tokenizer, files, texts, [(1, 2), (0, 0), (1, 2)])
    assert torch.allclose(some, torch.stack([all_scores[1, 2], all_scores[0, 0], all_scores[1, 2]]), atol=1e-5)


def test_a_missing_file_is_named(tmp_path: Path, base: tuple[object, object]) -> None:
    with pytest.raises(DataError, match=r"nowhere\.png"):
        ua.image_features(base[0], [tmp_path / "nowhere.png"])


def test_the_readme_example(tmp_path: Path, base: tuple[object, object]) -> None:
    model, tokenizer = ua.load_model("embedded"), base[1]
    ua.add_adapter(model, ua.AdapterConfig(bottleneck=19, key_value=8))
    counts = ua.count_parameters(model)
    assert counts.trainable_percent <= 2.2
    file = tmp_path / save_pictures(tmp_path)[0]
    adapted = ua.image_features(model, [file]).feature
    with ua.disable_adapter(model):
        assert torch.equal(ua.image_features(model, [file]).feature, adapted)  # a fresh adapter is the identity
    ua.save_adapter(model, tmp_path / "my-adapter")
    size = (tmp_path / "my-adapter/adapter_model.safetensors").stat().st_size
    assert size < 1_000_000
    assert tokenizer.convert_tokens_to_ids("[ENC]") == model.config.text_config.bos_token_id + 1
