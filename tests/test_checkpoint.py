"""Adapter folders, the base's hash, and the originals' `.pth` files."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import BlipConfig, BlipForConditionalGeneration, BlipForImageTextRetrieval

from reference import ParityCase
from squares import save_tokenizer
from tiny import randomise, tiny_config, tiny_model, tiny_texts
from uniadapter.app.cli import main
from uniadapter.checkpoints.adapter_folder import read_adapter_file, save_adapter
from uniadapter.checkpoints.adapters import add_adapter, load_adapter
from uniadapter.checkpoints.loading import load_model
from uniadapter.config import AdapterConfig
from uniadapter.model.adapter_set import AdapterSet
from uniadapter.model.blip.converting import convert_adapter
from uniadapter.model.blip.original import CheckpointError
from uniadapter.model.encoding import encode_text, encode_visual, match
from uniadapter.model.identity import base_hash
from uniadapter.model.sets import adapter_set, add_momentum
from uniadapter.model.settings import InferenceSettings
from uniadapter.model.shape import BackboneShape

CONFIG = AdapterConfig(bottleneck=6, key_value=3, temporal_frames=2)


def scores(model: BlipForImageTextRetrieval) -> torch.Tensor:
    ids, mask = tiny_texts(3)
    frames = torch.randn(2, 2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        pairs = torch.cartesian_prod(torch.arange(3), torch.arange(2))
        return match(model, encode_text(model, ids, mask), encode_visual(model, frames), pairs)


def trained(seed: int = 0) -> BlipForImageTextRetrieval:
    model = tiny_model(seed=seed)
    randomise(add_adapter(model, CONFIG))
    return model


def test_saved_adapter_gives_the_same_scores_on_a_fresh_base(tmp_path: Path) -> None:
    model = trained()
    expected = scores(model)
    save_adapter(model, tmp_path / "a", base="some/base", extra={"temperature": 0.07})
    fresh = tiny_model()
    assert not torch.equal(scores(fresh), expected)
    load_adapter(fresh, tmp_path / "a", "mine")
    assert torch.equal(scores(fresh), expected)
    described, _ = read_adapter_file(tmp_path / "a")
    assert described.adapter == CONFIG
    assert described.base == "some/base"
    assert described.extra == {"temperature": 0.07}
    assert not any(p.requires_grad for p in fresh.parameters())


def test_the_exact_set_of_saved_keys(tmp_path: Path) -> None:
    model = tiny_model(vision_layers=3, text_layers=2)
    add_adapter(model, CONFIG)
    add_momentum(model)
    save_adapter(model, tmp_path / "a")
    both = ["norm", "down", "up_vision", "up_text", "up_cross", "norm_cross"]
    modules = [f"layers.{i}.{m}" for i in (0, 1) for m in both] + [
        f"layers.2.{m}" for m in ("norm", "down", "up_vision")
    ]
    modules += [f"{kind}.{m}" for kind in ("key", "value") for m in ("down", "up")]
    modules += [f"heads.{h}" for h in ("vision_proj", "text_proj", "itm_head")]
    expected = {f"{m}.{p}" for m in modules for p in ("weight", "bias")} | {"key.scale", "value.scale", "time"}
    assert set(load_file(tmp_path / "a/adapter_model.safetensors")) == expected
    assert sorted(os.listdir(tmp_path / "a")) == ["README.md", "adapter_model.safetensors", "uniadapter_config.json"]
    assert "base_model" in (tmp_path / "a/README.md").read_text()


def test_another_base_is_refused(tmp_path: Path) -> None:
    save_adapter(trained(), tmp_path / "a", base="the/right-one")
    other = tiny_model(seed=1)
    with pytest.raises(CheckpointError, match=r"the/right-one.*\n?") as error:
        load_adapter(other, tmp_path / "a")
    assert "\n" not in str(error.value)
    assert not hasattr(other, "uniadapters") or not len(other.uniadapters)
    with pytest.raises(CheckpointError, match="BlipForConditionalGeneration"):
        load_adapter(tiny_model(BlipForConditionalGeneration), tmp_path / "a")


@pytest.mark.parametrize("breakage", ["json", "weights", "missing", "key"])
def test_a_broken_folder_is_one_line(tmp_path: Path, breakage: str) -> None:
    save_adapter(trained(), tmp_path / "a")
    config = tmp_path / "a/uniadapter_config.json"
    weights = tmp_path / "a/adapter_model.safetensors"
    if breakage == "json":
        config.write_text("{")
    elif breakage == "weights":
        weights.write_bytes(weights.read_bytes()[:100])
    elif breakage == "missing":
        weights.unlink()
    else:
        values = json.loads(config.read_text())
        values["adapter"]["bottlneck"] = 3
        config.write_text(json.dumps(values))
    with pytest.raises(CheckpointError) as error:
        load_adapter(tiny_model(), tmp_path / "a")
    assert str(tmp_path / "a") in str(error.value)
    assert "\n" not in str(error.value)


def test_a_full_disk_leaves_the_old_adapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = trained()
    save_adapter(model, tmp_path / "a")
    before = (tmp_path / "a/adapter_model.safetensors").read_bytes()
    randomise(adapter_set(model), seed=5)

    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("uniadapter.checkpoints.adapter_folder.save_file", full)
    with pytest.raises(CheckpointError, match="No space left on device"):
        save_adapter(model, tmp_path / "a")
    assert (tmp_path / "a/adapter_model.safetensors").read_bytes() == before
    assert os.listdir(tmp_path) == ["a"]


def test_replacing_an_adapter_leaves_nothing_behind(tmp_path: Path) -> None:
    model = trained()
    save_adapter(model, tmp_path / "a")
    randomise(adapter_set(model), seed=5)
    save_adapter(model, tmp_path / "a")
    assert os.listdir(tmp_path) == ["a"]
    fresh = tiny_model()
    load_adapter(fresh, tmp_path / "a")
    assert torch.equal(scores(fresh), scores(model))


def test_saving_leaves_everything_else_in_the_folder(tmp_path: Path) -> None:
    real = tmp_path / "elsewhere"
    (real / "data").mkdir(parents=True)
    (real / "thesis.tex").write_text("mine")
    (real / "data/rows.csv").write_text("mine too")
    (tmp_path / "project").symlink_to(real)
    for seed in range(2):
        save_adapter(trained(seed), tmp_path / "project")
    assert (tmp_path / "project").is_symlink()
    names = {str(path.relative_to(real)) for path in real.rglob("*")}
    assert names == {"thesis.tex", "data", "data/rows.csv", *WRITES}
    assert (real / "thesis.tex").read_text() == "mine"
    with pytest.raises(CheckpointError, match=r"thesis\.tex: is a file"):
        save_adapter(trained(), real / "thesis.tex")
    assert (real / "thesis.tex").read_text() == "mine"


def test_a_readme_and_an_adapter_of_others_are_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("# My project\n")
    for seed in range(2):
        save_adapter(trained(seed), tmp_path)
    assert (tmp_path / "README.md").read_text() == "# My project\n"
    save_adapter(trained(0), tmp_path / "own")
    save_adapter(trained(1), tmp_path / "own", extra={"seed": 1})
    assert "seed" in (tmp_path / "own" / "README.md").read_text()
    (tmp_path / "lora").mkdir()
    (tmp_path / "lora" / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    with pytest.raises(CheckpointError, match=r"lora: holds an adapter of PEFT"):
        save_adapter(trained(), tmp_path / "lora")
    assert [file.name for file in (tmp_path / "lora").iterdir()] == ["adapter_config.json"]


WRITES = ["adapter_model.safetensors", "uniadapter_config.json", "README.md"]


@pytest.mark.parametrize("before", [False, True], ids=["first", "again"])
@pytest.mark.parametrize("renamed", range(3))
@pytest.mark.parametrize("killed", [False, True], ids=["failed", "killed"])
def test_a_write_that_stops_half_way_leaves_an_adapter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: bool, renamed: int, killed: bool
) -> None:
    """Interrupted after each number of renames, by an error or for good, the folder loads as the old or the new one."""
    old, new = trained(), trained()
    randomise(adapter_set(new), seed=5)
    if before:
        save_adapter(old, tmp_path / "a", settings=InferenceSettings(prompt="old"))
    replace, done = os.replace, []

    def interrupted(source: str, target: str) -> None:
        if len(done) == renamed:
            if killed:
                os._exit(9)
            raise OSError(5, "Input/output error")
        done.append(Path(target).name)
        replace(source, target)

    monkeypatch.setattr(os, "replace", interrupted)
    if killed:
        child = os.fork()
        if not child:
            save_adapter(new, tmp_path / "a", settings=InferenceSettings(prompt="new"))
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    else:
        with pytest.raises(CheckpointError, match="Input/output error"):
            save_adapter(new, tmp_path / "a", settings=InferenceSettings(prompt="new"))
        assert done == WRITES[:renamed]
    monkeypatch.undo()
    if not before and not renamed:
        assert not (tmp_path / "a/adapter_model.safetensors").exists()
        return
    fresh = tiny_model()
    built = load_adapter(fresh, tmp_path / "a")
    assert built.settings.prompt == ("new" if renamed else "old")
    assert torch.equal(scores(fresh), scores(new if renamed else old))
    save_adapter(new, tmp_path / "a")  # and the next write clears what was left
    assert sorted(os.listdir(tmp_path / "a")) == sorted(WRITES)


def test_a_config_edited_by_hand_counts(tmp_path: Path) -> None:
    save_adapter(trained(), tmp_path / "a", base="old/name")
    file = tmp_path / "a/uniadapter_config.json"
    file.write_text(file.read_text().replace("old/name", "new/name"))
    assert read_adapter_file(tmp_path / "a")[0].base == "new/name"


def test_a_failed_fit_leaves_the_model_as_it_was(tmp_path: Path) -> None:
    save_adapter(trained(), tmp_path / "a")
    described = json.loads((tmp_path / "a/uniadapter_config.json").read_text())
    described["adapter"]["bottleneck"] = 7
    (tmp_path / "a/uniadapter_config.json").write_text(json.dumps(described))
    model = tiny_model()
    expected = scores(model)
    with pytest.raises(CheckpointError, match="do not fit"):
        load_adapter(model, tmp_path / "a")
    assert not hasattr(model, "uniadapters")
    assert torch.allclose(scores(model), expected, atol=1e-6)


class Code:
    """What a malicious pickle would run."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch /tmp/uniadapter-was-here",)


@pytest.mark.parametrize("content", ["code", "text", "empty", "numbers"])
def test_a_pth_that_is_no_checkpoint_is_refused(
    tmp_path: Path, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "bad.pth"
    if content == "code":
        torch.save({"model": Code()}, file)
    elif content == "text":
        file.write_text("hello")
    elif content == "empty":
        file.write_bytes(b"")
    else:
        torch.save({"model": {"x": 1}}, file)
    assert main(["convert", str(file), str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ")
    assert str(file) in error
    assert "\n" not in error
    assert not (tmp_path / "out").exists()
    assert not Path("/tmp/uniadapter-was-here").exists()
    if content == "code":
        assert "code" in error


def blip_pth(file: Path, case: ParityCase) -> dict[str, torch.Tensor]:
    """BLIP's own part of a reference checkpoint, as its `.pth` files are: below "model"."""
    weights = case.group("weights")
    base = {k: v for k, v in weights.items() if "adapter" not in k and "_m." not in k}
    torch.save({"model": base}, file)
    return base


def heads_of(case: ParityCase) -> list[str]:
    return ["--vision_heads", str(case.meta["vision_heads"]), "--text_heads", str(case.meta["num_heads"])]


def test_convert_blip_and_the_hash_is_the_same_from_everywhere(tmp_path: Path) -> None:
    case = ParityCase("retrieval_image")
    blip_pth(tmp_path / "blip.pth", case)
    assert main(["convert", str(tmp_path / "blip.pth"), str(tmp_path / "folder"), *heads_of(case)]) == 0
    folder = load_model(str(tmp_path / "folder"))
    plain = BlipForImageTextRetrieval.from_pretrained(tmp_path / "folder")
    with torch.no_grad():
        found = encode_visual(plain, case["inputs.pixel_values"][:, None]).tokens
        assert found.shape == case["outputs.visual_last_hidden_state"].shape
    from_pth = load_model(str(tmp_path / "blip.pth"))  # other head counts, the same tensors
    assert base_hash(folder) == base_hash(from_pth) == base_hash(plain)
    folder.half().save_pretrained(tmp_path / "half")
    assert base_hash(folder) != base_hash(from_pth)  # rounding is another base
    with torch.no_grad():
        from_pth.text_encoder.embeddings.word_embeddings.weight[5, 5] += 1
    assert base_hash(from_pth) != base_hash(plain)


def test_convert_the_authors_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    case = ParityCase("retrieval_image")
    weights = case.group("weights")
    # As in their files: shared adapters again under a layer, and something nobody knows.
    weights["visual_encoder.blocks.0.adapter.down_proj.weight"] = weights["adapters.0.down_proj.weight"]
    weights["a.stray.tensor"] = torch.zeros(2)
    torch.save({"model": weights, "epoch": 5}, tmp_path / "theirs.pth")
    assert main(["convert", str(tmp_path / "theirs.pth"), str(tmp_path / "adapter"), *heads_of(case)]) == 0
    said = capsys.readouterr().out
    assert "a.stray.tensor" in said
    assert "1 tensors" in said
    blip_pth(tmp_path / "blip.pth", case)
    main(["convert", str(tmp_path / "blip.pth"), str(tmp_path / "base"), *heads_of(case)])
    model = load_model(str(tmp_path / "base"))
    load_adapter(model, tmp_path / "adapter")
    with torch.no_grad():
        visuals = encode_visual(model, case["inputs.pixel_values"][:, None])
        texts = encode_text(model, case["inputs.input_ids"], case["inputs.attention_mask"])
        pairs = torch.cartesian_prod(torch.arange(2), torch.arange(2))
        logits = match(model, texts, visuals, pairs).view(2, 2, 2)
    assert (logits - case["outputs.itm_logits"]).abs().max() < 1e-5


def test_convert_a_question_answering_checkpoint(tmp_path: Path) -> None:
    case = ParityCase("vqa_image")
    torch.save({"model": case.group("weights")}, tmp_path / "vqa.pth")
    heads = {"vision_heads": case.meta["vision_heads"], "text_heads": case.meta["num_heads"]}
    imported = convert_adapter(tmp_path / "vqa.pth", tmp_path / "adapter", **heads)
    assert any(name.startswith("decoder_key") for name in imported.state)
    assert all(name.startswith("adapters_dec") for name in imported.unused)
    blip_pth(tmp_path / "blip.pth", case)
    assert main(["convert", str(tmp_path / "blip.pth"), str(tmp_path / "base"), *heads_of(case)]) == 0
    model = load_model(str(tmp_path / "base"), "vqa")
    load_adapter(model, tmp_path / "adapter")


def test_more_vision_than_text_layers_reports_what_no_use_has(tmp_path: Path) -> None:
    theirs = ParityCase("retrieval_image").group("weights")
    deep = dict(theirs)
    for key, tensor in theirs.items():
        if key.startswith(("adapters.1.", "visual_encoder.blocks.1.")):
            deep[key.replace(".1.", ".2.", 1)] = tensor.clone()
    torch.save({"model": deep}, tmp_path / "deep.pth")
    imported = convert_adapter(tmp_path / "deep.pth", tmp_path / "a", vision_heads=4, text_heads=4)
    assert imported.unused == [k for k in deep if k.startswith("adapters.2.") and (
        "multi_up_proj" in k or ".up_proj" in k or "cross_modal" in k)]  # fmt: skip


def test_adapter_file_of_blip_base_is_small() -> None:
    shape = BackboneShape(vision_layers=12, vision_width=768, text_layers=12, text_width=768)
    heads = {"vision_proj": torch.nn.Linear(768, 256), "text_proj": torch.nn.Linear(768, 256),
             "itm_head": torch.nn.Linear(768, 2)}  # fmt: skip
    built = AdapterSet(AdapterConfig(bottleneck=128, key_value=64), shape, heads)
    assert 4 * sum(t.numel() for t in built.state_dict().values()) <= 22e6


def test_a_pth_base_uses_the_tokenizer_beside_it(tmp_path: Path) -> None:
    from uniadapter.checkpoints.loading import load_tokenizer

    blip_pth(tmp_path / "blip.pth", ParityCase("retrieval_image"))
    save_tokenizer(tmp_path / "words", 62)
    vocabulary = json.loads((tmp_path / "words/tokenizer.json").read_text())["model"]["vocab"]
    words = sorted(vocabulary, key=vocabulary.get)[:60]  # BERT's file has no [DEC] and [ENC]
    (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n")
    tokenizer = load_tokenizer(str(tmp_path / "blip.pth"))
    assert tokenizer.convert_tokens_to_ids("[DEC]") == 60
    assert tokenizer.convert_tokens_to_ids("[ENC]") == 61


def test_base_without_what_a_task_needs_is_refused(tmp_path: Path) -> None:
    BlipForConditionalGeneration(tiny_config()).save_pretrained(tmp_path / "caption")
    with pytest.raises(CheckpointError, match="text_encoder"):
        load_model(str(tmp_path / "caption"), "retrieval")
    assert isinstance(load_model(str(tmp_path / "caption"), "caption").config, BlipConfig)
