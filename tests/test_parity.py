"""The authors' numbers, reproduced through the public functions on weights that came in by `original`'s code."""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor
from transformers import BlipForImageTextRetrieval, BlipForQuestionAnswering, PreTrainedModel

from reference import PARITY, ParityCase, parity_cases
from uniadapter.checkpoints.adapters import add_adapter
from uniadapter.config import ModelConfig, ObjectiveConfig
from uniadapter.model.adapter import KeyValueAdapter, UniAdapter
from uniadapter.model.blip.decoder import question_context, text_nll
from uniadapter.model.blip.original import adapter_name, import_adapter, import_base, infer_config
from uniadapter.model.blip.ranking import rank_answers
from uniadapter.model.encoding import encode_text, encode_visual, fuse
from uniadapter.model.features import AnswerTree, Context
from uniadapter.model.frame_attention import frame_weights
from uniadapter.model.sets import adapter_set
from uniadapter.model.tokens import TokenBatch
from uniadapter.tasks.retrieval import RetrievalLoss
from uniadapter.training.loss import StepInfo

RETRIEVAL = parity_cases("retrieval")
VQA = parity_cases("vqa")


def close(actual: Tensor, expected: Tensor, what: str = "") -> None:
    """The tolerance for outputs and losses."""
    difference = (actual - expected).abs().max().item()
    assert difference <= 1e-5, f"{what}: {difference}"


def close_gradient(actual: Tensor, expected: Tensor, what: str) -> None:
    """The tolerance for gradients, per tensor."""
    difference = (actual - expected).abs().max().item()
    assert difference <= 1e-6 + 1e-4 * expected.abs().max().item(), f"{what}: {difference}"


def build(case: ParityCase, cls: type[PreTrainedModel] = BlipForImageTextRetrieval) -> PreTrainedModel:
    """The case's model: base and adapters from the authors' names, momentum set included."""
    weights, meta = case.group("weights"), case.meta
    config = infer_config(weights, vision_heads=meta["vision_heads"], text_heads=meta["num_heads"])
    config.text_config.bos_token_id = meta["dec_token_id"]
    config.text_config.enc_token_id = meta["enc_token_id"]
    assert config.vision_config.image_size == meta["image_size"]
    model = cls(config).eval()
    missing, unexpected = model.load_state_dict(import_base(weights), strict=False)
    assert (missing, unexpected) == ([], [])
    imported = import_adapter(weights, frame_aware=meta["config"]["frame_aware_attention"])
    online = add_adapter(model, imported.config)
    online.load_state_dict(imported.state)
    return model


def frames_of(case: ParityCase) -> Tensor:
    """The case's pixels as [B, T, 3, H, W]."""
    pixels = case["inputs.pixel_values"]
    return pixels if pixels.ndim == 5 else pixels[:, None]


def test_parity_adapter() -> None:
    case = ParityCase("adapter")
    weights, x = case.group("weights"), case["inputs.x"]
    ours = import_adapter({f"adapters.0.{k.removeprefix('uniadapter.')}": v for k, v in weights.items()
                           if k.startswith("uniadapter")} | {"text_encoder.encoder.layer.0.x": x,
                                                             "visual_encoder.blocks.0.x": x})  # fmt: skip
    rank, width = weights["uniadapter.down_proj.weight"].shape
    adapter = UniAdapter(width, rank)
    adapter.load_state_dict({k.removeprefix("layers.0."): v for k, v in ours.state.items()})
    close(adapter(x, "text"), case["outputs.text"], "text")
    close(adapter(x, "vision"), case["outputs.visual"], "vision")
    close(adapter(x, "cross"), case["outputs.multimodal"], "cross")
    rank = weights["adapter_lora.down_proj.weight"].shape[0]
    key = KeyValueAdapter(width, rank, width)
    key.load_state_dict({k.removeprefix("adapter_lora.").replace("_proj", ""): v for k, v in weights.items()
                         if k.startswith("adapter_lora")})  # fmt: skip
    close(key(x), case["outputs.adapter_lora"], "key/value")


@pytest.mark.parametrize("name", RETRIEVAL)
def test_parity_features_and_fusion(name: str) -> None:
    case = ParityCase(name)
    model = build(case)
    with torch.no_grad():
        visuals = encode_visual(model, frames_of(case))
        texts = encode_text(model, case["inputs.input_ids"], case["inputs.attention_mask"])
        close(visuals.tokens, case["outputs.visual_last_hidden_state"], "visual states")
        close(visuals.feature, case["outputs.visual_feature"], "visual feature")
        close(visuals.frames, case["outputs.frame_features"], "frame features")
        length = texts.ids.shape[1]
        real = texts.mask.bool()
        close(texts.states[real], case["outputs.text_last_hidden_state"][:, :length][real], "text states")
        close(texts.feature, case["outputs.text_feature"], "text feature")
        if "outputs.frame_similarity" in case:
            expected = torch.softmax(case["outputs.frame_similarity"] / 4, -1) * visuals.tokens.shape[1]
            close(frame_weights(texts.feature, visuals.frames), expected, "frame weights")
        pairs = torch.cartesian_prod(torch.arange(len(texts)), torch.arange(len(visuals)))
        states = fuse(model, texts, visuals, pairs).unflatten(0, (len(texts), len(visuals)))
        expected = case["outputs.multimodal_last_hidden_state"][:, :, :length]
        keep = real[:, None].expand(-1, len(visuals), -1)
        close(states[keep], expected[keep], "fused states")
        logits = model.itm_head(fuse(model, texts, visuals, pairs, read="first"))
        close(logits.unflatten(0, (len(texts), len(visuals))), case["outputs.itm_logits"], "matching logits")


def test_parity_folder_has_the_expected_cases() -> None:
    assert (PARITY / "adapter.safetensors").is_file()
    assert any(name.startswith("retrieval_image") for name in RETRIEVAL)


def released_task(case: ParityCase) -> RetrievalLoss:
    """The case's model as a training task, queue filled as theirs was."""
    model, weights, meta = build(case), case.group("weights"), case.meta
    objective = ObjectiveConfig(
        queue_size=meta["queue_size"], momentum=meta["momentum"], alpha=float(case["inputs.alpha"]),
        temperature=meta["temperature"], matching="outputs.loss_itm" in case,
        negatives="all" if meta["config"]["negative_all_rank"] else "batch",
    )  # fmt: skip
    task = RetrievalLoss(model, None, ModelConfig(), objective)
    task.momentum.load_state(  # what the file leaves out of the momentum set equals the online weights
        adapter_set(model).state_dict() | import_adapter(weights).momentum
    )
    task.queue.visual.copy_(weights["image_queue"].T)
    task.queue.text.copy_(weights["text_queue"].T)
    task.queue.ids.copy_(weights["idx_queue"][0])
    task.queue.pointer.copy_(weights["ptr_queue"][0])
    return task


def released_double_update(task: RetrievalLoss, decay: float) -> None:
    """The release updates an adapter that both encoders use twice a step; ours once, so the test adds the other."""
    online, momentum = adapter_set(task.model), adapter_set(task.model, "momentum")
    shared = min(online.shape.vision_layers, online.shape.text_layers)
    with torch.no_grad():
        for layer in range(shared):
            for m, p in zip(momentum.layers[layer].parameters(), online.layers[layer].parameters(), strict=True):
                m.lerp_(p, 1 - decay)


@pytest.mark.parametrize("name", RETRIEVAL)
def test_parity_training_step(name: str) -> None:
    case = ParityCase(name)
    task = released_task(case)
    released_double_update(task, case.meta["momentum"])
    ids = case["inputs.idx"].view(-1)
    tokens = TokenBatch(case["inputs.input_ids"], case["inputs.attention_mask"])
    task.training = True  # moves momentum and queue; the layers stay in evaluation mode, as theirs did
    losses = task.losses(frames_of(case), tokens, ids, torch.arange(len(ids)), StepInfo(0, 1, 0, 1))
    close(losses["contrastive"], case["outputs.loss_itc"], "ITC loss")
    if "outputs.loss_itm" in case:
        close(losses["matching"], case["outputs.loss_itm"], "ITM loss")
    losses["loss"].backward()
    checked = 0
    for key, expected in case.group("grads").items():
        ours = adapter_name(key)
        assert ours is not None, key
        found = dict(adapter_set(task.model).named_parameters()).get(ours)
        if found is None:  # up-projections that serve no use in a layer are not built here
            assert expected.abs().max() == 0, key
            continue
        close_gradient(found.grad if found.grad is not None else torch.zeros_like(found), expected, ours)
        checked += 1
    assert checked > 20 or not case.group("grads")  # two_captions came without gradients
    after = case.group("after")
    for key, expected in after.items():
        twin = adapter_name(re.sub(r"_m\b", "", key, count=1)) if "_m" in key else None
        moved = dict(adapter_set(task.model, "momentum").named_parameters())
        if twin is not None and twin in moved:
            close(moved[twin], expected, key)
    close(task.queue.visual, after["image_queue"].T, "visual queue")
    close(task.queue.text, after["text_queue"].T, "text queue")
    assert torch.equal(task.queue.ids, after["idx_queue"].view(-1))
    assert int(task.queue.pointer) == int(after["ptr_queue"])


def asked(case: ParityCase) -> tuple[PreTrainedModel, Context]:
    """The case's model and its questions, fused with their pictures or videos."""
    model = build(case, BlipForQuestionAnswering)
    visuals = encode_visual(model, frames_of(case))
    rows = torch.arange(len(visuals))
    return model, question_context(model, visuals, case["inputs.question_ids"], case["inputs.question_mask"], rows)


@pytest.mark.parametrize("name", VQA)
def test_parity_questions_and_answers(name: str) -> None:
    case = ParityCase(name)
    with torch.no_grad():
        model, context = asked(case)
        visuals = encode_visual(model, frames_of(case))
        close(visuals.tokens.flatten(1, 2), case["outputs.visual_last_hidden_state"], "visual states")
        real, length = context.mask.bool(), context.mask.shape[1]
        expected = case["outputs.question_last_hidden_state"][:, :length]
        close(context.states[real], expected[real], "question states")
        ids, mask = case["inputs.candidate_ids"], case["inputs.candidate_mask"]
        questions, answers = len(context), len(ids)
        rows = torch.arange(questions).repeat_interleave(answers)
        nll = text_nll(model, context, rows, ids.repeat(questions, 1), mask.repeat(questions, 1))
        close(nll.view(questions, answers), case["outputs.answer_nll"], "likelihoods one by one")
        tree = AnswerTree.of([row[:n].tolist() for row, n in zip(ids, mask.sum(1), strict=True)])
        chosen, ranked = rank_answers(model, context, tree)
        close(ranked, case["outputs.answer_nll"].gather(1, chosen), "likelihoods of the tree")
        for key, expected in case.group("outputs").items():
            if key.startswith("rank_top"):
                best = rank_answers(model, context, tree, k=int(key.removeprefix("rank_top")))[0][:, 0]
                assert torch.equal(best, expected.view(-1).long()), key


@pytest.mark.parametrize("name", VQA)
def test_parity_answer_loss(name: str) -> None:
    case = ParityCase(name)
    model, context = asked(case)
    ids, mask = case["inputs.answer_ids"].clone(), case["inputs.answer_mask"]
    ids[:, 0] = case.meta["dec_token_id"]
    rows = torch.arange(len(context)).repeat_interleave(case["inputs.answers_per_question"])
    loss = (text_nll(model, context, rows, ids, mask) * case["inputs.answer_weights"]).sum() / len(context)
    frames = case.meta["num_frames"]  # the release divides a video batch by its frames too
    close(loss / frames, case["outputs.loss"], "answer loss")
    (loss / frames).backward()
    checked = 0
    for key, expected in case.group("grads").items():
        ours = adapter_name(key)
        assert ours is not None, key
        found = dict(adapter_set(model).named_parameters()).get(ours)
        if found is None:
            assert expected.abs().max() == 0, key
            continue
        close_gradient(found.grad if found.grad is not None else torch.zeros_like(found), expected, ours)
        checked += 1
    assert checked > 20
