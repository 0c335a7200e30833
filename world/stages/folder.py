"""The folder that transformers load: ``python -m world.stages.folder STAGE4 FOLDER``.

One set of weights for `BlipForImageTextRetrieval`, `BlipForConditionalGeneration` and `BlipForQuestionAnswering`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from uniadapter.model.backbone import CLIP_MEAN, CLIP_STD
from world.pictures.grounds import SIZE
from world.stages.stage3 import Speaker, read_joint
from world.stages.subject import Subject
from world.texts.vocabulary import make_tokenizer


def write(subject: Subject, speaker: Speaker | None, folder: Path) -> None:
    """Write the folder: float16 weights that load as float32, configuration, tokenizer and processor.

    Args:
        subject: the base.
        speaker: the decoder of captions and answers, if there is one.
        folder: made where it is missing; its other files stay.
    """
    retrieval, decoder = subject.learner.base, speaker.decoder if speaker else nn.Module()
    folder.mkdir(parents=True, exist_ok=True)
    state = dict(retrieval.state_dict())
    for key, value in decoder.state_dict().items():
        # tied to other keys of the file: transformers ties them again on loading
        if key not in ("cls.predictions.decoder.weight", "cls.predictions.decoder.bias"):
            state["text_decoder." + key] = value
    tensors = {k: v.detach().to(torch.float16).clone().contiguous() for k, v in state.items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = retrieval.config
    config.architectures = ["BlipForImageTextRetrieval"]
    config.dtype = torch.float32
    config.save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    processor = {
        "image_processor_type": "BlipImageProcessor",
        "processor_class": "BlipProcessor",
        "do_resize": True, "do_rescale": True, "do_normalize": True, "do_convert_rgb": True,
        "size": {"height": SIZE, "width": SIZE}, "resample": 3, "rescale_factor": 1 / 255,
        "image_mean": list(CLIP_MEAN), "image_std": list(CLIP_STD),
    }  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(processor, indent=2) + "\n")
    file = folder / "tokenizer_config.json"
    settings = json.loads(file.read_text())
    for key in ("is_local", "local_files_only"):  # of the machine that wrote it, not of the tokenizer
        settings.pop(key, None)
    settings["model_input_names"] = ["input_ids", "attention_mask"]  # BLIP has no token types
    file.write_text(json.dumps(settings, indent=2) + "\n")
    (folder / "model.safetensors").chmod(0o644)  # safetensors makes it readable by its owner only


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path, help="of the joint stage")
    parser.add_argument("folder", type=Path)
    args = parser.parse_args()
    write(*read_joint(args.weights), args.folder)


if __name__ == "__main__":
    main()
