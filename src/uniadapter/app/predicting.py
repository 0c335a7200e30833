"""The commands `ask` and `caption` as a Python function."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from uniadapter.app.display import say
from uniadapter.checkpoints.adapter_folder import read_adapter_config
from uniadapter.config import ModelConfig, RunConfig
from uniadapter.data.questions import read_answer_list
from uniadapter.errors import DataError
from uniadapter.evaluation.answering import Prediction
from uniadapter.inference.features import image_features
from uniadapter.inference.predict import ask, caption
from uniadapter.model.settings import first_given
from uniadapter.runs.folders import resolve_source
from uniadapter.tasks.preparing import prepare


def run_prediction(
    task: str,
    file: Path,
    questions: list[str],
    base: str | None,
    adapter: Path | None,
    answers: Path | None,
    frames: int | None,
) -> list[Prediction] | list[str]:
    """Answer questions about a picture or video, or generate its caption, and print the result.

    Args:
        task: "vqa" or "caption".
        file: the picture or video.
        questions: for "vqa".
        base: of the model; None takes the one that the adapter's folder names, or the embedded one.
        adapter: an adapter folder, a fully fine-tuned model's folder, or a run's; None takes the base alone.
        answers: file with a list of answers to choose from; None takes the adapter's list, or generates answers.
        frames: number of frames of a video; None takes the adapter's.

    Returns:
        The predictions, or a list with the caption.

    Raises:
        DataError: the file is missing or broken.
        CheckpointError: base or adapter cannot be loaded.
    """
    config, adapter = resolve_source(RunConfig(task=task, model=ModelConfig(base=base or "embedded")), adapter)  # type: ignore[arg-type]
    described = read_adapter_config(adapter) if adapter else None
    if described and not base:
        config = replace(config, model=replace(config.model, base=described.base))
    frames = first_given(frames, described.settings.frames if described else None, 1)
    file = Path(file).expanduser()
    if not os.path.lexists(file):
        raise DataError(f"{file} does not exist: name a picture, a video or a folder of frames")
    prepared = prepare(config.untrained(), adapter)
    visuals = image_features(prepared.model, [file], frames)
    if task == "caption":
        texts = caption(prepared.model, prepared.tokenizer, visuals)
        say(texts[0])
        return texts
    listed = read_answer_list(answers) if answers else None
    found = ask(prepared.model, prepared.tokenizer, visuals, questions, listed)
    for question, prediction in zip(questions, found, strict=True):
        say(question)
        for text, probability in prediction.ranked or ((prediction.answer, None),):
            say(f"  {text}" if probability is None else f"  {100 * probability:5.1f}%  {text}")
    return found
