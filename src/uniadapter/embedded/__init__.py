"""The tasks that come with the package, made ready on first use: `embedded:TASK/SPLIT` in a config."""

from __future__ import annotations

from uniadapter.config import ConfigError
from uniadapter.embedded.clips import prepare_clips
from uniadapter.embedded.easy_vqa import prepare_easy_vqa
from uniadapter.embedded.folders import cache_folder
from uniadapter.embedded.scenes import prepare_scenes

PREFIX = "embedded:"
# Name to what writes the folder, and what its files' names begin with.
TASKS = {
    "scenes": (prepare_scenes, ""),
    "vqa": (prepare_scenes, "vqa_"),
    "clips": (prepare_clips, ""),
    "videoqa": (prepare_clips, "vqa_"),
    "easy_vqa": (prepare_easy_vqa, ""),
}


def resolve(name: str) -> str:
    """The annotation file of `embedded:TASK/SPLIT`, made on first use; any other name as it is.

    Raises:
        ConfigError: there is no such task or split.
        WriteError: the folder cannot be written.
    """
    if not name.startswith(PREFIX):
        return name
    task, _, split = name.removeprefix(PREFIX).partition("/")
    if task not in TASKS:
        have = ", ".join(f"{PREFIX}{known}/SPLIT" for known in TASKS)
        raise ConfigError(f"data: there is no embedded task {task!r} (in {name!r}); there is {have}")
    write, beginning = TASKS[task]
    folder = write(cache_folder())
    file = folder / f"{beginning}{split}.json"
    if not file.is_file():
        names = sorted(p.stem for p in folder.glob("*.json"))
        have = ", ".join(n.removeprefix(beginning) for n in names if n.startswith("vqa_") == bool(beginning))
        raise ConfigError(f"data: there is no split {split!r} of the embedded {task}; there is {have}")
    return str(file)
