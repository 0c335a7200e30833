"""`convert`, and `.pth` files as bases: converted, or refused in one line that names the file."""

from __future__ import annotations

import json
import os
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoProcessor

import uniadapter as ua
from reference import ParityCase
from squares import save_tokenizer
from uniadapter.app.cli import main
from uniadapter.checkpoints.loading import load_model, load_tokenizer
from uniadapter.checkpoints.pth import read_pth
from uniadapter.errors import CheckpointError
from uniadapter.model.blip.converting import convert_blip
from uniadapter.model.blip.fusion import enc_token_id
from uniadapter.model.blip.original import infer_config

HEADS = ["--vision_heads", "4", "--text_heads", "4"]
PATCH = "visual_encoder.patch_embed.proj.weight"
WORDS = "text_encoder.embeddings.word_embeddings.weight"
POSITIONS = "text_encoder.embeddings.position_embeddings.weight"
QUERY = "text_encoder.encoder.layer.1.attention.self.query.weight"
State = dict[str, Tensor]


def theirs() -> State:
    return ParityCase("retrieval_image").group("weights")


def blip() -> State:
    return {key: value for key, value in theirs().items() if "adapter" not in key and "_m." not in key}


def refused(capsys: pytest.CaptureFixture[str], file: Path, *arguments: str) -> str:
    """The one line with which `convert` refuses a file; nothing is written."""
    output = file.parent / "out"
    assert main(["convert", str(file), str(output), *(arguments or HEADS)]) == 2
    line = capsys.readouterr().err.strip()
    assert line.startswith("error: ")
    assert "\n" not in line
    assert len(line) <= len("error: ") + 300
    assert str(file) in line
    assert not output.exists()
    return line


def put(name: str, change: Callable[[Tensor], object]) -> Callable[[State], None]:
    def mutate(state: State) -> None:
        state[name] = change(state[name])  # type: ignore[assignment]

    return mutate


def renamed(name: str, new: object) -> Callable[[State], None]:
    def mutate(state: State) -> None:
        state[new] = state.pop(name)  # type: ignore[index]

    return mutate


BROKEN: dict[str, tuple[Callable[[State], None], str]] = {
    "a number for a name": (renamed(QUERY, 5), "int"),
    "a missing tensor": (lambda state: state.__delitem__(QUERY), "lacks"),
    "no position table": (lambda state: state.__delitem__("visual_encoder.pos_embed"), "has no"),
    "a dimension more": (put(QUERY, lambda t: t[None]), "shape"),
    "a dimension less": (put(WORDS, lambda t: t[0]), "shape"),
    "a scalar": (put(WORDS, lambda t: torch.tensor(1.0)), "shape"),
    "an empty patch": (put(PATCH, lambda t: t[:, :, :0]), "none of them 0"),
    "no patches": (put(PATCH, lambda t: torch.zeros(0, 3, 16, 16)), "none of them 0"),
    "oblong patches": (put(PATCH, lambda t: t[..., :8].clone()), "square"),
    "positions of no square": (put("visual_encoder.pos_embed", lambda t: t[:, :4].clone()), "square"),
    "a shorter bias": (put("vision_proj.bias", lambda t: t[:10].clone()), "shape"),
    "twice as wide": (put(PATCH, lambda t: torch.cat([t, t])), "shape"),
    "quantised": (put(QUERY, lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8)), "quantised"),
    "sparse": (put(QUERY, lambda t: t.to_sparse()), "sparse"),
    "complex": (put(QUERY, lambda t: t.to(torch.complex64)), "complex64"),
    "whole numbers": (put(WORDS, lambda t: t.long()), "int64"),
    "gigabytes that are one number": (put(WORDS, lambda t: torch.zeros(1).expand(10**9, 32)), "expanded"),
    "no values at all": (put(QUERY, lambda t: t.to("meta")), "no values"),
    "a layer of number 10^9": (renamed(QUERY, QUERY.replace(".1.", ".1000000000.")), "no layer 2"),
    "not a number": (put(QUERY, lambda t: t * float("nan")), "NaN"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_tensors_that_no_blip_has_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], what: str) -> None:
    mutate, said = BROKEN[what]
    state = blip()
    mutate(state)
    torch.save({"model": state}, tmp_path / "x.pth")
    assert said in refused(capsys, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=r"x\.pth") as caught:
        load_model(str(tmp_path / "x.pth"))
    assert len(str(caught.value)) <= 300


@pytest.mark.parametrize(
    "what", ["adapters.0.up_proj.weight", "adapters.0.down_proj.weight", "adapters.1.down_proj.bias"]
)
def test_adapters_of_another_shape_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], what: str) -> None:
    state = theirs()
    state[what] = torch.cat([state[what], state[what]], -1)
    torch.save({"model": state}, tmp_path / "x.pth")
    assert "shape" in refused(capsys, tmp_path / "x.pth")
    state.pop(what)
    torch.save({"model": state}, tmp_path / "x.pth")
    refused(capsys, tmp_path / "x.pth", "--kind", "uniadapter", *HEADS)


def test_heads_that_do_not_divide_a_width_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"model": blip()}, tmp_path / "x.pth")
    assert "vision_heads" in refused(capsys, tmp_path / "x.pth", "--vision_heads", "5")


def rewritten(file: Path, pickled: bytes | None = None, compression: int = zipfile.ZIP_STORED, zeros: int = 0) -> None:
    """A file of PyTorch's zip format with another pickle, or with compressed zeros for its values."""
    torch.save({"a": torch.zeros(4)}, file)
    with zipfile.ZipFile(file) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in entries.items():
            if pickled is not None and name.endswith("data.pkl"):
                content = pickled
            archive.writestr(name, bytes(zeros) if zeros and "/data/" in name else content)


FORMS: dict[str, Callable[[Path], object]] = {
    "a stack that runs out": lambda file: rewritten(file, b"\x80\x02ss."),
    "a pickle of megabytes": lambda file: rewritten(file, b"\x80\x02" + b"]" * (1 << 18) + b"."),
    "an old pickle of megabytes": lambda file: file.write_bytes(b"\x80\x02" + b"]" * (1 << 18) + b"."),
    "bytes out of nothing": lambda file: rewritten(file, b"\x80\x02c__builtin__\nbytearray\nJ\xff\xff\xff\x7f\x85R."),
    "a bomb": lambda file: rewritten(file, None, zipfile.ZIP_DEFLATED, 20 << 20),
    "half a file": lambda file: (rewritten(file), file.write_bytes(file.read_bytes()[:700])),
    "another archive": lambda file: zipfile.ZipFile(file, "w").writestr("readme.txt", "hello"),
    "zeros": lambda file: file.write_bytes(bytes(1000)),
    "a list": lambda file: torch.save([torch.zeros(3)], file),
    "a tensor": lambda file: torch.save(torch.zeros(3), file),
    "a folder": lambda file: file.mkdir(),
}


@pytest.mark.parametrize("what", FORMS)
def test_files_that_are_no_checkpoints_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr("uniadapter.checkpoints.pth.MOST_PICKLED", 1 << 17)
    FORMS[what](tmp_path / "x.pth")
    refused(capsys, tmp_path / "x.pth")


class Code:
    """An object that, unpickled, would run a command."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {os.environ['RAN']}",)


@pytest.mark.parametrize("old", [False, True])
def test_code_is_never_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, old: bool
) -> None:
    monkeypatch.setenv("RAN", str(tmp_path / "ran"))
    content = {"model": {**blip(), "epoch": Code()}}
    torch.save(content, tmp_path / "x.pth", _use_new_zipfile_serialization=not old)
    line = refused(capsys, tmp_path / "x.pth")
    assert "could run code" in line
    assert "system" in line
    assert not (tmp_path / "ran").exists()


def test_names_of_tensors_cannot_write_to_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"model": {**blip(), "\x1b[31m\nevil": torch.zeros(1)}}, tmp_path / "x.pth")
    assert main(["convert", str(tmp_path / "x.pth"), str(tmp_path / "out"), *HEADS]) == 0
    said = capsys.readouterr()
    assert "\x1b" not in said.out + said.err
    assert "evil" in said.out


def test_weights_that_share_memory_are_converted(tmp_path: Path) -> None:
    """BLIP's pre-trained files tie the decoder's layers to the encoder's: one memory under two names."""
    state = ParityCase("vqa_image").group("weights")
    state = {key: value for key, value in state.items() if "adapter" not in key and "_m." not in key}
    tied = "text_decoder.bert.encoder.layer.0.intermediate.dense.weight"
    state[tied] = state[tied.replace("text_decoder.bert", "text_encoder")]
    torch.save({"model": state}, tmp_path / "x.pth")
    assert main(["convert", str(tmp_path / "x.pth"), str(tmp_path / "out"), *HEADS]) == 0
    model = load_model(str(tmp_path / "out"), "vqa")
    both = [model.get_parameter(name) for name in (tied, tied.replace("text_decoder.bert", "text_encoder"))]
    assert torch.equal(*both)
    assert both[0].data_ptr() != both[1].data_ptr()


def test_converting_adds_to_a_folder(tmp_path: Path) -> None:
    torch.save({"model": blip()}, tmp_path / "x.pth")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/thesis.tex").write_text("years of work")
    for _ in range(2):
        assert main(["convert", str(tmp_path / "x.pth"), str(tmp_path / "out"), *HEADS]) == 0
    assert (tmp_path / "out/thesis.tex").read_text() == "years of work"
    assert not [file for file in (tmp_path / "out").iterdir() if file.name.startswith(".")]


def bert_words(file: Path, count: int = 62) -> None:
    """A `vocab.txt` as BERT's: words without [DEC] and [ENC]."""
    save_tokenizer(file.parent / "whole", count + 2)
    vocabulary = json.loads((file.parent / "whole/tokenizer.json").read_text())["model"]["vocab"]
    file.write_text("\n".join(sorted(vocabulary, key=vocabulary.get)[:count]) + "\n")  # type: ignore[arg-type]


def test_convert_writes_tokenizer_and_preprocessing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"model": blip()}, tmp_path / "x.pth")
    bert_words(tmp_path / "vocab.txt")
    assert main(["convert", str(tmp_path / "x.pth"), str(tmp_path / "out"), *HEADS]) == 0
    assert "no tokenizer" not in capsys.readouterr().out
    tokenizer = load_tokenizer(tmp_path / "out")
    assert tokenizer.convert_tokens_to_ids(["[DEC]", "[ENC]", "red"]) == [62, 63, 10]
    model = load_model(tmp_path / "out")
    features = ua.text_features(model, tokenizer, ["a red square", "a blue square"]).feature
    assert not torch.equal(features[0], features[1])
    processor = AutoProcessor.from_pretrained(tmp_path / "out")
    assert processor.image_processor.size["height"] == infer_config(blip(), 4, 4).vision_config.image_size
    assert processor(text="a red square").input_ids == tokenizer("a red square").input_ids


def test_ids_of_special_tokens_are_the_tokenizers(tmp_path: Path) -> None:
    """A `.pth` file doesn't tell where [SEP] is; answers would not end without."""
    torch.save({"model": blip()}, tmp_path / "x.pth")
    words = [f"[unused{number}]" for number in range(40)] + ["[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = ["[PAD]", *words, *["a", "the", "of", "picture", "red", "blue", "black", "white", "square", "dog"]]
    (tmp_path / "vocab.txt").write_text("\n".join(words + [f"##{letter}" for letter in "abcdefg"]) + "\n")
    assert main(["convert", str(tmp_path / "x.pth"), str(tmp_path / "out"), *HEADS]) == 0
    assert load_tokenizer(tmp_path / "out").sep_token_id == 43
    for base in ("out", "x.pth"):
        text = load_model(tmp_path / base).config.text_config
        assert (text.sep_token_id, text.bos_token_id, enc_token_id(load_model(tmp_path / base))) == (43, 62, 63)


def test_a_tokenizer_can_be_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"model": blip()}, tmp_path / "x.pth")
    (tmp_path / "words").mkdir()
    bert_words(tmp_path / "words/vocab.txt")
    for chosen in ("words", "words/vocab.txt", "words/whole"):
        name = ["--tokenizer", str(tmp_path / chosen)]
        assert main(["convert", str(tmp_path / "x.pth"), str(tmp_path / chosen.replace("/", "-")), *HEADS, *name]) == 0
        assert load_tokenizer(tmp_path / chosen.replace("/", "-")).convert_tokens_to_ids("[ENC]") == 63
    bert_words(tmp_path / "words/vocab.txt", 30)
    (tmp_path / "words/whole/tokenizer.json").write_text("{")
    for chosen in ("words/vocab.txt", "words/whole", "nowhere"):
        assert (
            main(["convert", str(tmp_path / "x.pth"), str(tmp_path / "no"), "--tokenizer", str(tmp_path / chosen)]) == 2
        )
        line = capsys.readouterr().err
        assert str(tmp_path / chosen) in line
        assert len(line.splitlines()) == 1
    assert not (tmp_path / "no").exists()


def test_without_a_tokenizer_it_converts_and_says_where_to_get_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"model": blip()}, tmp_path / "x.pth")
    assert main(["convert", str(tmp_path / "x.pth"), str(tmp_path / "out"), *HEADS]) == 0
    said = capsys.readouterr().out
    assert "no tokenizer" in said
    assert "vocab.txt" in said
    assert load_model(tmp_path / "out").config.text_config.vocab_size == 64
    with pytest.raises(CheckpointError, match=re.escape(str(tmp_path / "out")) + r".*no tokenizer.*vocab\.txt"):
        load_tokenizer(tmp_path / "out")
    bert_words(tmp_path / "out/vocab.txt")
    assert load_tokenizer(tmp_path / "out").convert_tokens_to_ids("[DEC]") == 62


def test_reading_shapes_alone_reads_no_values(tmp_path: Path) -> None:
    torch.save({"model": blip()}, tmp_path / "x.pth")
    shapes = read_pth(tmp_path / "x.pth", shapes_only=True)
    assert {key: tensor.shape for key, tensor in shapes.items()} == {key: t.shape for key, t in blip().items()}
    assert all(tensor.is_meta for tensor in shapes.values())


def test_a_read_only_folder_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"model": blip()}, tmp_path / "x.pth")
    (tmp_path / "file").write_text("not a folder")
    assert main(["convert", str(tmp_path / "x.pth"), str(tmp_path / "file"), *HEADS]) == 2
    assert str(tmp_path / "file") in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "not a folder"
    assert convert_blip(tmp_path / "x.pth", tmp_path / "b", vision_heads=4, text_heads=4).no_tokenizer


def test_a_name_with_half_of_a_surrogate_pair_is_refused(tmp_path: Path) -> None:
    torch.save({"model": {"vision_proj.bias\ud83d": torch.zeros(2)}}, tmp_path / "odd.pth")
    with pytest.raises(CheckpointError, match=r"odd\.pth: the name .*ud83d' is not valid text"):
        read_pth(tmp_path / "odd.pth")
