"""Whatever holds a picture gives what its file gives; a string is one text; what is neither is refused in one line."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import PreTrainedModel

import uniadapter as ua
from squares import save_pictures
from uniadapter.data.media.user_inputs import as_clips, as_texts, clip_length

Base = tuple[PreTrainedModel, Any]


@pytest.fixture(scope="module")
def base() -> Base:
    return ua.load_model(), ua.load_tokenizer()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Pictures of every kind that files have: turned, see-through, deep, grey, with a palette, moving."""
    folder = tmp_path_factory.mktemp("pictures")
    draw = np.random.default_rng(0)
    rgb = draw.integers(0, 256, (20, 32, 3), dtype=np.uint8)
    picture = Image.fromarray(rgb)
    turned = Image.Exif()
    turned[0x0112] = 6
    picture.save(folder / "turned.jpg", exif=turned, quality=95)
    Image.fromarray(np.dstack([rgb, draw.integers(0, 256, (20, 32), dtype=np.uint8)])).save(folder / "clear.png")
    Image.fromarray(draw.integers(0, 65536, (20, 32), dtype=np.uint16)).save(folder / "deep.png")
    picture.convert("L").save(folder / "grey.png")
    picture.convert("P").save(folder / "palette.png")
    picture.save(folder / "plain.png")
    deep = draw.normal(0, 1000, (20, 32))
    Image.fromarray(deep.astype(np.float32)).save(folder / "floats.tiff")
    Image.fromarray((draw.random((20, 32)) * 1.02).astype(np.float32)).save(folder / "shares.tiff")
    Image.fromarray((deep * 1000).astype(np.int32)).save(folder / "whole.tiff")
    frames = [Image.fromarray(draw.integers(0, 256, (20, 32, 3), dtype=np.uint8)) for _ in range(6)]
    durations = [100, 100, 900, 100, 100, 100]
    frames[0].save(folder / "moving.webp", save_all=True, append_images=frames[1:], duration=durations, lossless=True)
    return {file.stem: file for file in folder.iterdir()}


def feature(base: Base, picture: Any, **more: Any) -> torch.Tensor:
    return ua.image_features(base[0], picture, **more).feature


@pytest.mark.parametrize("name", ["turned", "clear", "deep", "grey", "palette", "plain", "floats", "shares", "whole"])
def test_a_pillow_image_gives_what_its_file_gives(base: Base, files: dict[str, Path], name: str) -> None:
    of_file = feature(base, str(files[name]))
    assert of_file.shape[0] == 1
    content = files[name].read_bytes()
    given: list[Any] = [
        files[name], Image.open(files[name]), Image.open(io.BytesIO(content)), content, {"bytes": content},
        [Image.open(files[name])], (files[name],),
    ]  # fmt: skip
    if name not in ("turned", "palette"):  # an array knows of no turn, and of no palette
        array = np.array(Image.open(files[name]))
        whole = array if array.dtype.kind == "f" else array.astype(np.int32)
        given += [
            array,
            array[None],
            [array],
            torch.from_numpy(whole),
        ]
    for one in given:
        assert torch.equal(feature(base, one), of_file), type(one)


def test_arrays_of_every_layout_and_range(base: Base, files: dict[str, Path]) -> None:
    array = np.asarray(Image.open(files["plain"]))
    expected = feature(base, files["plain"])
    first, floats = array.transpose(2, 0, 1), (array / 255).astype(np.float32)
    for one in (
        first, array.astype(np.uint16) * 257, array.astype(np.int64), floats, floats.astype(np.float16),
        floats.astype(np.float64), array.astype(np.float32), torch.from_numpy(first.copy()),
        torch.from_numpy(floats.transpose(2, 0, 1).copy()).requires_grad_(),
        torch.from_numpy(floats.copy()), torch.from_numpy(array.astype(np.float32)).bfloat16(),
    ):  # fmt: skip
        assert torch.equal(feature(base, one), expected), (type(one), one.dtype, one.shape)
    grey = np.asarray(Image.open(files["grey"]))
    for one in (grey, grey[..., None], grey[None], torch.from_numpy(grey / 255.0)[None]):
        assert torch.equal(feature(base, one), feature(base, files["grey"]))
    mask = grey > 99
    assert torch.equal(feature(base, mask), feature(base, mask.astype(np.uint8) * 255))
    over = floats * 1.04 - 0.02  # as a bicubic resize leaves them: clipped, not taken for almost black
    clipped = np.rint(over.clip(0, 1) * 255).astype(np.uint8)
    assert torch.allclose(feature(base, over), feature(base, clipped), atol=5e-3)
    many = feature(base, np.stack([array, array[::-1]]))
    assert torch.allclose(many, torch.cat([expected, feature(base, array[::-1])]), atol=1e-6)


def test_where_channels_could_be_first_or_last_numpy_and_torch_have_their_own_habit(base: Base) -> None:
    array = np.random.default_rng(1).integers(0, 256, (3, 9, 3), dtype=np.uint8)
    assert torch.equal(feature(base, array), feature(base, Image.fromarray(array)))
    assert torch.equal(feature(base, torch.from_numpy(array)), feature(base, array.transpose(1, 2, 0)))


def test_frames_give_what_their_video_gives(base: Base, files: dict[str, Path]) -> None:
    moving = Image.open(files["moving"])
    frames = []
    for number in range(6):
        moving.seek(number)
        frames.append(moving.convert("RGB"))
    moving.seek(0)
    for count in (2, 4, 6):
        expected = feature(base, files["moving"], frames=count)
        assert torch.equal(feature(base, Image.open(files["moving"]), frames=count), expected)
    assert moving.tell() == 0
    whole = ua.image_features(base[0], [frames])
    assert whole.tokens.shape[:2] == (1, 6), "who hands over frames has chosen them"
    assert torch.equal(whole.feature, feature(base, [np.stack([np.asarray(f) for f in frames])]))
    assert torch.equal(feature(base, [frames], frames=2), feature(base, [[frames[1], frames[4]]]))
    still = ua.image_features(base[0], [frames, frames[0]])
    alone = ua.image_features(base[0], frames[0], frames=6)
    assert torch.allclose(still.feature[1], alone.feature[0], atol=1e-6)
    with pytest.raises(ValueError, match="frames="):
        ua.image_features(base[0], [frames, frames[:3]])


def test_a_string_is_one_text_everywhere(base: Base, files: dict[str, Path]) -> None:
    model, tokenizer = base
    text = "a red box"
    assert torch.equal(
        ua.text_features(model, tokenizer, text).feature, ua.text_features(model, tokenizer, [text]).feature
    )
    scores = ua.pair_scores(model, tokenizer, files["plain"], text)
    assert scores.shape == (1, 1)
    assert torch.equal(scores, ua.pair_scores(model, tokenizer, [files["plain"]], [text]))
    vqa = ua.load_model("embedded", "vqa")
    asked = ua.ask(vqa, tokenizer, files["plain"], "what is it?", ["red", "box"])
    assert asked == ua.ask(vqa, tokenizer, files["plain"], ["what is it?"], ("red", "box"))
    assert len(asked) == 1
    assert ua.ask(vqa, tokenizer, files["plain"], "what is it?", "red")[0].answer == "red"
    captioner = ua.load_model("embedded", "caption")
    assert ua.caption(captioner, tokenizer, files["plain"]) == ua.caption(captioner, tokenizer, [files["plain"]])


def test_nothing_gives_nothing(base: Base, files: dict[str, Path]) -> None:
    model, tokenizer = base
    wide = model.config.image_text_hidden_size
    visuals, texts = ua.image_features(model, []), ua.text_features(model, tokenizer, [])
    assert visuals.feature.shape == texts.feature.shape == (0, wide)
    assert (len(visuals), len(texts), visuals.tokens.shape[:2]) == (0, 0, (0, 1))
    assert ua.pair_scores(model, tokenizer, [], ["a", "b"]).shape == (2, 0)
    assert ua.pair_scores(model, tokenizer, files["plain"], []).shape == (0, 1)
    assert ua.pair_scores(model, tokenizer, files["plain"], "a", []).shape == (0,)
    assert ua.pair_scores(model, tokenizer, files["plain"], "a", torch.empty(0, 2)).shape == (0,)
    assert ua.ask(ua.load_model("embedded", "vqa"), tokenizer, files["plain"], []) == []
    assert ua.caption(ua.load_model("embedded", "caption"), tokenizer, []) == []


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda m, t, f: ua.text_features(m, t, None), r"texts is None"),
        (lambda m, t, f: ua.text_features(m, t, 7), r"texts is 7 \(int\)"),
        (lambda m, t, f: ua.text_features(m, t, b"box"), r"texts is b'box'"),
        (lambda m, t, f: ua.text_features(m, t, {"a": 1}), r"texts is"),
        (lambda m, t, f: ua.text_features(m, t, ["a", None]), r"texts\[1\] is None"),
        (lambda m, t, f: ua.text_features(m, t, [["a"]]), r"texts\[0\] is \['a'\] \(list\)"),
        (lambda m, t, f: ua.text_features(m, t, "a \ud83d box"), r"texts\[0\] has a lone surrogate"),
        (lambda m, t, f: ua.text_features(m, t, "a", max_tokens=-1), r"max_tokens is -1"),
        (lambda m, t, f: ua.text_features(m, t, "a", max_tokens=10**6), r"max_tokens is 1000000: the model takes"),
        (lambda m, t, f: ua.pair_scores(m, t, f, ["a", 3.5]), r"texts\[1\] is 3.5"),
        (lambda m, t, f: ua.pair_scores(m, t, f, "a", [(0, 1)]), r"pairs point outside"),
        (lambda m, t, f: ua.pair_scores(m, t, f, "a", [(0, -1)]), r"pairs point outside"),
        (lambda m, t, f: ua.pair_scores(m, t, f, "a", [(0, 0, 0)]), r"pairs must be whole numbers \[P, 2\]"),
        (lambda m, t, f: ua.pair_scores(m, t, f, "a", [(0.0, 0.0)]), r"pairs must be whole numbers"),
        (lambda m, t, f: ua.pair_scores(m, t, f, "a", 0), r"pairs must be whole numbers"),
        (lambda m, t, f: ua.pair_scores(m, t, f, "a", {}), r"pairs is \{\}"),
        (lambda m, t, f: ua.text_features(m, t, "a", max_tokens=float("nan")), r"max_tokens is nan"),
        (lambda m, t, f: ua.image_features(m, torch.zeros(3, 4, 4, device="meta")), r"without values"),
        (lambda m, t, f: ua.image_features(m, f, frames=True), r"frames is True"),
        (lambda m, t, f: ua.image_features(m, None), r"images is None"),
        (lambda m, t, f: ua.image_features(m, 3), r"images is 3 \(int\)"),
        (lambda m, t, f: ua.image_features(m, [f, None]), r"images\[1\] is None"),
        (lambda m, t, f: ua.image_features(m, [[f, [f]]]), r"images\[0\]\[1\] is"),
        (lambda m, t, f: ua.image_features(m, [[]]), r"images\[0\] is a video without frames"),
        (lambda m, t, f: ua.image_features(m, f, frames=0), r"frames is 0"),
        (lambda m, t, f: ua.image_features(m, f, frames=-1), r"frames is -1"),
        (lambda m, t, f: ua.image_features(m, f, frames=2.5), r"frames is 2.5"),
        (lambda m, t, f: ua.image_features(m, f, image_size=-1), r"image_size is -1"),
        (lambda m, t, f: ua.image_features(m, f, image_size=8), r"image_size is 8: the base's patches"),
        (lambda m, t, f: ua.image_features(m, "https://x.org/a.png"), r"is a URL"),
        (lambda m, t, f: ua.image_features(m, np.zeros((5, 6, 7))), r"its channels"),
        (lambda m, t, f: ua.image_features(m, np.zeros((5, 0))), r"empty array"),
        (lambda m, t, f: ua.image_features(m, torch.randn(3, 8, 8) * 2), r"encode_visual"),
        (lambda m, t, f: ua.image_features(m, np.full((4, 4), np.nan)), r"NaN"),
        (lambda m, t, f: ua.image_features(m, np.full((4, 4, 3), 70000)), r"70000"),
        (lambda m, t, f: ua.image_features(m, np.full((4, 4), "a")), r"whole numbers or floats"),
        (lambda m, t, f: ua.caption(m, t, f), r"caption needs a BlipForConditionalGeneration.*'embedded', 'caption'"),
        (lambda m, t, f: ua.ask(m, t, f, "what?"), r"ask needs a BlipForQuestionAnswering.*'embedded', 'vqa'"),
    ],
)
def test_what_is_neither_is_refused_in_one_line(
    base: Base, files: dict[str, Path], call: Callable[..., Any], said: str
) -> None:
    with pytest.raises((TypeError, ValueError), match=said) as caught:
        call(*base, files["plain"])
    assert len(str(caught.value)) <= 300
    assert "\n" not in str(caught.value)


def test_models_of_the_other_tasks_say_how_to_load_the_right_one(base: Base, files: dict[str, Path]) -> None:
    vqa, captioner = ua.load_model("embedded", "vqa"), ua.load_model("embedded", "caption")
    for model in (vqa, captioner):
        for call in (ua.text_features, lambda m, t, x: ua.pair_scores(m, t, files["plain"], x)):
            with pytest.raises(TypeError, match=r"needs a BlipForImageTextRetrieval.*'embedded', 'retrieval'"):
                call(model, base[1], "a")
    with pytest.raises(TypeError, match="'embedded', 'caption'"):
        ua.caption(vqa, base[1], files["plain"])
    with pytest.raises(TypeError, match="'embedded', 'vqa'"):
        ua.ask(captioner, base[1], files["plain"], "what?")
    two = ua.image_features(vqa, [files["plain"], files["grey"]])
    with pytest.raises(ValueError, match="given 2"):
        ua.ask(vqa, base[1], two, "what?")
    for questions in (None, ["what?", 3], "\udc00?"):
        with pytest.raises((TypeError, ValueError), match="questions"):
            ua.ask(vqa, base[1], files["plain"], questions)
    for answers in (["red", None], ["\ud83d"], 4):
        with pytest.raises((TypeError, ValueError), match="answers"):
            ua.ask(vqa, base[1], files["plain"], "what?", answers)


def test_a_caption_has_room_beside_its_prompt(base: Base, files: dict[str, Path]) -> None:
    model = ua.load_model("embedded", "caption")
    for more, said in (
        ({"prompt": "a picture of " * 8}, "no room is left"), ({"shortest": 21}, "shortest is 21"),
        ({"beams": 0}, "beams is 0"), ({"longest": 10**6}, "longest is 1000000"), ({"longest": -1}, "longest is -1"),
        ({"shortest": -1}, "shortest is -1"), ({"prompt": 3}, "prompt is 3"), ({"beams": 1.5}, "beams is 1.5"),
        ({"shortest": "5"}, "shortest is '5'"),
    ):  # fmt: skip
        with pytest.raises((TypeError, ValueError), match=said):
            ua.caption(model, base[1], files["plain"], **more)


@pytest.mark.parametrize("task", ["retrieval", "vqa", "caption"])
def test_predictions_are_made_in_evaluation_mode_and_leave_the_mode_alone(
    base: Base, files: dict[str, Path], task: str
) -> None:
    model, file = ua.load_model("embedded", task), files["plain"]
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.5

    def predictions() -> list[Any]:
        found: list[Any] = [ua.image_features(model, file).feature.tolist()]
        if task == "retrieval":
            found += [ua.text_features(model, base[1], "a box").feature.tolist()]
            found += [ua.pair_scores(model, base[1], file, "a box").tolist()]
        elif task == "vqa":
            found += ua.ask(model, base[1], file, "what is it?", ["red", "two", "box"])
            found += ua.ask(model, base[1], file, "what is it?")
        else:
            found += ua.caption(model, base[1], file)
        return found

    expected = predictions()
    model.train()
    kept = model.vision_model.post_layernorm.eval()  # one that a user holds in evaluation mode
    assert predictions() == expected
    others = [module for module in model.modules() if module is not kept]
    assert all(module.training for module in others)
    assert not kept.training
    assert not ua.image_features(model, file).feature.requires_grad


def test_what_is_cut_is_said(base: Base, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        ua.text_features(*base, ["a box", "xylophonist quizzically " * 14])
        ua.text_features(*base, ["box " * 31, "box"])
    assert "1 of 2 texts are longer than 35 tokens" in caplog.text
    assert "1 of 2 texts are longer than 30 words" in caplog.text


def test_rows_print_as_shapes(base: Base, tmp_path: Path) -> None:
    visuals = ua.image_features(base[0], [tmp_path / name for name in save_pictures(tmp_path)[:2]])
    assert repr(visuals) == "Visuals(tokens=[2, 1, 37, 192], feature=[2, 64], frames=[2, 1, 64], float32 on cpu)"
    assert repr(ua.text_features(*base, "a car")) == (
        "Texts(ids=[1, 4], mask=[1, 4], states=[1, 4, 192], feature=[1, 64], float32 on cpu)"
    )


def test_lists_of_clips() -> None:
    clips = as_clips(["a.png", ["b.png", "c.png"]])
    assert [len(clip.frames) for clip in clips] == [1, 2]
    assert (clip_length(clips, None), clip_length(clips[:1], None), clip_length(clips, 5)) == (2, 1, 5)
    assert as_texts(np.array(["a", "b"])) == ["a", "b"]
    assert as_texts(text for text in ("a",)) == ["a"]


@pytest.mark.parametrize("frames", [1025, 100_000])
def test_more_frames_than_a_clip_may_have_are_refused_before_anything_is_read(frames: int) -> None:
    with pytest.raises(ValueError, match=f"frames is {frames}: a clip has at least 1 frame and at most 1024"):
        clip_length(as_clips(Image.new("RGB", (4, 4))), frames)
