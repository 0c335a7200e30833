"""How a family's models are loaded: config, weights that may be missing, tokenizer.

`BaseLoader` reads folders of transformers files with transformers' own classes; a family overrides what differs.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import transformers
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from uniadapter.checkpoints.bases import CONFIG
from uniadapter.checkpoints.tokenizers import check_vocabulary, find_tokenizer, read_tokenizer
from uniadapter.errors import CheckpointError, ConfigError
from uniadapter.files.messages import first_line
from uniadapter.files.schema import SchemaError, read_json
from uniadapter.model.families import Family, families, family_of

if TYPE_CHECKING:
    from collections.abc import Mapping

logger = logging.getLogger(__name__)


class BaseLoader:
    """Loads the models of a family.

    Args:
        family: of the models.

    Attributes:
        optional_modules: submodules whose weights a file may lack, such as heads; they are then initialised randomly.
    """

    optional_modules: ClassVar[tuple[str, ...]] = ()

    def __init__(self, family: Family) -> None:
        self.family = family

    def class_of(self, task: str) -> type[PreTrainedModel]:
        """The class in transformers of a task's model.

        Raises:
            ConfigError: the family has none.
        """
        name = self.family.classes.get(task)
        if name is None:
            able = [one.title for one in families().values() if task in one.classes]
            raise ConfigError(
                f"{self.family.title} has no model for {task}, only for {', '.join(self.family.classes)}: "
                f"choose a base of {' or '.join(able)} (see `uniadapter families`)"
            )
        found: type[PreTrainedModel] = getattr(transformers, name)
        return found

    def read_config(self, folder: Path) -> PreTrainedConfig:
        """The config of a folder of transformers files.

        Raises:
            CheckpointError: it is missing, broken, or holds values that no model of the family can have.
        """
        task = next(iter(self.family.classes))
        try:
            described = read_json(folder / CONFIG)
            config = self.class_of(task).config_class.from_dict(described)  # type: ignore[union-attr]
        except (SchemaError, OSError) as error:
            raise CheckpointError(str(error)) from error
        except Exception as error:  # invalid values make transformers raise anything
            raise CheckpointError(f"{folder / CONFIG}: no {self.family.title} ({first_line(error)})") from error
        self.check_config(config, folder / CONFIG)
        found: PreTrainedConfig = config
        return found

    def check_config(self, config: PreTrainedConfig, file: Path) -> None:
        """Raise `CheckpointError` for values that no model of the family can have; names the file."""

    def read_original(self, path: Path, base: str) -> tuple[PreTrainedConfig, dict[str, Tensor]]:
        """Config and weights of a file in the original format of the family's authors.

        Args:
            path: of the file.
            base: as the user named it, for errors.

        Raises:
            CheckpointError: the family has no such format.
        """
        raise CheckpointError(f"{base}: {self.family.title} is read from a folder of transformers files")

    def tied(self, config: PreTrainedConfig) -> tuple[str, ...]:
        """Prefixes of names that a file may lack, since their weights are tied to others."""
        return ()

    def renamed(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The weights under the model's names; to be overridden if files use other names."""
        return state

    def warnings(self, folder: Path) -> list[str]:
        """Warnings, a line each, about settings in the folder that are not used."""
        return []

    def finish(self, model: PreTrainedModel, folder: Path, base: str) -> None:
        """Load what is not in the weights' file, if anything; called last.

        Args:
            model: with the weights of its file.
            folder: of the base.
            base: as the user named it.
        """

    def tokenizer(self, path: Path, base: str) -> PreTrainedTokenizerBase:
        """The tokenizer of a folder, checked against the model.

        Raises:
            CheckpointError: there is none, it is broken, or it is another model's; says what to do.
        """
        source = find_tokenizer(path)
        if source is None:
            raise CheckpointError(f"{base}: has no tokenizer: put the tokenizer files that the base came with there")
        tokenizer = read_tokenizer(source)
        for side in ("padding_side", "truncation_side"):
            if getattr(tokenizer, side) != "right":
                logger.info("%s: %s is %s; texts are padded and cut on the right here", base, side, "left")
                setattr(tokenizer, side, "right")
        words = self.family.size(self.read_config(path).to_dict(), self.family.vocabulary)
        if words is None:
            raise CheckpointError(f"{path / CONFIG}: does not say how many tokens there are")
        check_vocabulary(tokenizer, words, str(source))
        return tokenizer


def loader_of(path: Path) -> BaseLoader:
    """The loader of a base: by the `model_type` in a folder's config; a file is in BLIP's original format.

    Raises:
        CheckpointError: the config is broken, or no family has its `model_type`.
    """
    if not path.is_dir():
        family = next(one for one in families().values() if one.originals)
    else:
        file = path / CONFIG
        try:
            values = read_json(file)
        except SchemaError as error:
            raise CheckpointError(str(error)) from error
        except OSError as error:
            raise CheckpointError(f"{file}: could not be read ({error.strerror or error})") from error
        kind = values.get("model_type") if isinstance(values, dict) else None
        try:
            family = family_of(kind)
        except LookupError:
            known = ", ".join(repr(one) for each in families().values() for one in each.model_types)
            raise CheckpointError(
                f"{file}: its model_type is {str(kind)[:40]!r}, not one of {known}; choose another base"
            ) from None
    found: BaseLoader = family.part("loader")(family)
    return found
