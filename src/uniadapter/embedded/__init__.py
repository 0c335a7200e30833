"""Small datasets that ship with the package, `embedded:TASK/SPLIT` in a config; generated on first use."""

from __future__ import annotations

from functools import partial

from uniadapter.config import ConfigError
from uniadapter.embedded.annotations import SPLITS
from uniadapter.embedded.cached_folders import cache_folder
from uniadapter.embedded.easy_vqa import prepare_easy_vqa
from uniadapter.embedded.emoji_clips import prepare_clips
from uniadapter.embedded.emoji_scenes import prepare_scenes
from uniadapter.files.assets import PREFIX

# Name to the function that writes the folder, and the prefix of its annotation files.
TASKS = {
    "scenes": (prepare_scenes, ""),
    "captions": (prepare_scenes, "captions_"),
    "vqa": (prepare_scenes, "vqa_"),
    "drawn": (partial(prepare_scenes, name="drawn"), ""),
    "drawn_captions": (partial(prepare_scenes, name="drawn"), "captions_"),
    "drawn_vqa": (partial(prepare_scenes, name="drawn"), "vqa_"),
    "clips": (prepare_clips, ""),
    "videoqa": (prepare_clips, "vqa_"),
    "easy_vqa": (prepare_easy_vqa, ""),
}


def resolve_embedded(name: str) -> str:
    """The annotation file of `embedded:TASK/SPLIT`, generated on first use; other names are returned unchanged.

    Raises:
        ConfigError: there is no such task or split.
        WriteError: the cache folder cannot be written.
    """
    if not name.startswith(PREFIX):
        return name
    task, _, split = name.removeprefix(PREFIX).partition("/")
    if task not in TASKS:
        have = ", ".join(f"{PREFIX}{known}/SPLIT" for known in TASKS)
        raise ConfigError(f"data: there is no embedded task {task!r} (in {name!r}); there is {have}")
    write, prefix = TASKS[task]
    folder = write(cache_folder())
    file = folder / f"{prefix}{split}.json"
    if not file.is_file():
        have = ", ".join(one for one in SPLITS if (folder / f"{prefix}{one}.json").is_file())
        raise ConfigError(f"data: there is no split {split!r} of the embedded {task}; there is {have}")
    return str(file)
