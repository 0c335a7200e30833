"""Requests of different tasks and adapters in one batch have what each would have alone."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

import uniadapter as ua
from uniadapter.checkpoints.shared_weights import share_weights
from uniadapter.model import encoding
from uniadapter.serve import answering
from uniadapter.serve.answering import Answer, Job, run_jobs
from uniadapter.serve.service import Service


def jobs_of(service: Service) -> list[Job]:
    items = sorted((row.path, row.kind == "video") for row in service.index.files())
    pictures = [one for one in items if not one[1]]
    videos = [one for one in items if one[1]]
    named = service.adapters.named
    return [
        Job(*pictures[0], named("vqa", "vqa"), "how many things are there?"),
        Job(*pictures[1], named("caption", "caption")),
        Job(*pictures[2], named("vqa", "base"), "what is in the picture?"),
        Job(*videos[0], named("vqa", "videoqa"), "what comes first?"),
        Job(*pictures[3], named("caption", "base")),
        Job(*videos[1], named("vqa", "vqa"), "is there a dog?"),
        Job(*pictures[0], named("vqa", "vqa"), "is there a tree?"),
    ]


def test_a_batch_is_what_each_would_have_alone(service: Service) -> None:
    jobs = jobs_of(service)
    together = run_jobs(jobs)
    for job, given in zip(jobs, together, strict=True):
        (alone,) = run_jobs([job])
        assert isinstance(given, Answer)
        assert isinstance(alone, Answer)
        assert given.text == alone.text
        assert [text for text, _ in given.ranked] == [text for text, _ in alone.ranked]
        assert [p for _, p in given.ranked] == pytest.approx([p for _, p in alone.ranked], abs=1e-5)


def test_an_answer_is_that_of_the_library(service: Service) -> None:
    job = jobs_of(service)[0]
    (given,) = run_jobs([job])
    loaded = ua.from_pretrained("embedded:vqa")
    (right,) = ua.ask(loaded.model, loaded.tokenizer, job.path, str(job.question))
    assert isinstance(given, Answer)
    assert given.text == right.answer
    assert [p for _, p in given.ranked] == pytest.approx([p for _, p in right.ranked], abs=1e-5)


def test_the_pictures_of_all_tasks_are_encoded_at_once(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []

    def counted(model: PreTrainedModel, frames: torch.Tensor) -> ua.Visuals:
        sizes.append(len(frames))
        return encoding.encode_visual(model, frames)

    monkeypatch.setattr(answering, "encode_visual", counted)
    jobs = jobs_of(service)
    run_jobs([jobs[0], jobs[1], jobs[2], jobs[4], jobs[6]])
    assert sizes == [5]


def test_a_broken_file_is_its_own_job_s_error(service: Service, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    jobs = jobs_of(service)
    given = run_jobs([jobs[0], dataclasses.replace(jobs[0], path=str(broken)), jobs[1]])
    assert isinstance(given[0], Answer)
    assert "broken.png" in str(given[1])
    assert isinstance(given[2], Answer)


def test_one_base_is_in_memory_once(service: Service) -> None:
    models = {id(one.model): one.model for task in ("retrieval", "vqa", "caption") for one in service.adapters.of(task)}
    assert len(models) == 3
    vision = [{p.data_ptr() for p in model.vision_model.parameters()} for model in models.values()]
    assert vision[0] == vision[1] == vision[2]
    assert service.adapters.freed > 2 * sum(p.nbytes for p in next(iter(models.values())).vision_model.parameters())


def test_sharing_changes_no_output() -> None:
    first, second = ua.load_model("embedded", "vqa"), ua.load_model("embedded", "caption")
    pixels = torch.randn(2, 1, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = [ua.encode_visual(model, pixels).tokens for model in (first, second)]
        share_weights(first, second)
        after = [ua.encode_visual(model, pixels).tokens for model in (first, second)]
    assert all(map(torch.equal, before, after))
    assert first.vision_model.embeddings.position_embedding is second.vision_model.embeddings.position_embedding
