"""A set of adapters: everything that one name trains, built for a backbone of a given shape."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from uniadapter.config import AdapterConfig, ConfigError
from uniadapter.model.adapter import KeyValueAdapter, UniAdapter, Use
from uniadapter.model.settings import NO_SETTINGS, InferenceSettings

logger = logging.getLogger(__name__)

# What modules are called in files. In a model `key` and `value` would be taken for the base's own by whoever looks for
# those names, as PEFT does.
_IN_FILES = {"encoder_key.": "key.", "encoder_value.": "value."}


def file_name(name: str) -> str:
    """What a tensor of a set's state dict is called in an adapter file."""
    here = next((here for here in _IN_FILES if name.startswith(here)), "")
    return _IN_FILES.get(here, "") + name.removeprefix(here)


@dataclass(frozen=True)
class BackboneShape:
    """What an adapter set must know of a backbone.

    Args:
        vision_layers: depth of the visual encoder.
        vision_width: its hidden size.
        text_layers: depth of the text encoder (or of the decoder, where that is the only text model).
        text_width: its hidden size.
        encoder: the model has a text encoder whose cross-attention reads visual tokens.
        decoder_source: width of the states that an answer or caption decoder attends to; 0 without a decoder.
        queries: learned queries pass through the text layers too, as in a Q-Former; they take the vision use of these
            layers' adapters, which `config.text` turns on: without adapters the visual encoder needs no backward pass.
        cross_every: which text layers have a cross-attention: every n-th, from the first on.
    """

    vision_layers: int
    vision_width: int
    text_layers: int
    text_width: int
    encoder: bool = True
    decoder_source: int = 0
    queries: bool = False
    cross_every: int = 1

    @property
    def crosses(self) -> bool:
        """Whether any text layer attends to visual tokens: else there is nothing for cross and key/value adapters."""
        return self.encoder or self.decoder_source > 0

    @property
    def shares_width(self) -> bool:
        """Whether vision and text can use one down-projection."""
        return self.vision_width == self.text_width


class AdapterSet(nn.Module):
    """Everything that one name trains: adapters, key/value adapters, temporal embedding and heads.

    Its state dict is the adapter file, up to `file_name`, and it loads both. Layers ask it for what they need by role
    and index, and get None where nothing was built.

    Args:
        config: the set's shape.
        shape: the backbone's.
        heads: the base's heads by name; copies of them are trained here, the base's own stay as they are.
        scalars: the base's numbers of the contrastive loss by name, likewise: a logarithmic scale, a bias.

    `settings` is what it must be asked with, see `InferenceSettings`: of a loaded adapter what its folder says.
    """

    settings: InferenceSettings = NO_SETTINGS
    momentum_of: str | None = None  # name of the set whose moving average this one is

    def __init__(
        self,
        config: AdapterConfig,
        shape: BackboneShape,
        heads: Mapping[str, nn.Linear],
        scalars: Mapping[str, nn.Parameter] | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.shape = shape
        self.factors = nn.ModuleList()
        self.layers = nn.ModuleList()
        self.vision_layers = nn.ModuleList()
        self.decoder_layers = nn.ModuleList()
        self._build_layers()
        if config.key_value and shape.encoder:
            self.encoder_key = self._key_value(shape.vision_width)
            self.encoder_value = self._key_value(shape.vision_width)
        if config.key_value and shape.decoder_source:
            self.decoder_key = self._key_value(shape.decoder_source)
            self.decoder_value = self._key_value(shape.decoder_source)
        if config.temporal_frames:
            self.time = nn.Parameter(torch.zeros(1, config.temporal_frames, shape.vision_width))
        self.temperature: nn.Parameter | None
        self.register_parameter("temperature", None)
        self.heads = nn.ModuleDict()
        if config.heads:
            for name, linear in heads.items():
                if not linear.weight.is_floating_point():
                    raise ConfigError(
                        f"{name} is quantised, and heads are trained in full precision: load the base with "
                        f"BitsAndBytesConfig(llm_int8_skip_modules={sorted(heads)}), or set adapter.heads to false"
                    )
                twin = nn.Linear(
                    linear.in_features,
                    linear.out_features,
                    bias=linear.bias is not None,
                    device=linear.weight.device,
                    dtype=linear.weight.dtype,
                )
                twin.load_state_dict(linear.state_dict())
                self.heads[name] = twin
        self.scalars = nn.ParameterDict()
        if config.heads:
            for name, scalar in (scalars or {}).items():
                self.scalars[name] = nn.Parameter(scalar.detach().clone())

    @property
    def key(self) -> KeyValueAdapter:
        """The adapter on the keys of the encoder's cross-attention."""
        return self.encoder_key

    @property
    def value(self) -> KeyValueAdapter:
        """The adapter on the values of the encoder's cross-attention."""
        return self.encoder_value

    def learn_temperature(self, start: float) -> nn.Parameter:
        """The contrastive temperature as a parameter of this set; it starts where it was left by earlier training."""
        if self.temperature is None:
            some = next(self.parameters())
            self.temperature = nn.Parameter(torch.tensor(start, dtype=some.dtype, device=some.device))
        return self.temperature

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        if not any(key.startswith(prefix) for key in state_dict):
            logger.warning("what is loaded into the model holds no adapter %r: it stays as it is", prefix.strip("."))
        for here, in_files in _IN_FILES.items():
            for key in [key for key in state_dict if key.startswith(prefix + in_files)]:
                state_dict[prefix + here + key.removeprefix(prefix + in_files)] = state_dict.pop(key)
        if f"{prefix}temperature" in state_dict:
            self.learn_temperature(0.0)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def _key_value(self, source: int) -> KeyValueAdapter:
        return KeyValueAdapter(source, self.config.key_value, self.shape.text_width, self.config.init)

    def _adapter(self, width: int, uses: list[Use], factor: nn.Linear | None = None) -> nn.Module:
        if not uses:
            return nn.Identity()  # keeps the index of the layers behind it; no parameters, never called
        config = self.config
        return UniAdapter(width, config.bottleneck, config.scale, uses, config.init, factor)

    def _build_layers(self) -> None:
        config, shape = self.config, self.shape
        vision: list[Use] = ["vision"] if config.vision else []
        text: list[Use] = ["text"] if config.text else []
        text += ["cross"] if config.cross and shape.crosses else []
        if not (shape.crosses or vision or text):
            raise ConfigError("adapter: vision and text are off, and this base has no cross-attention to adapt")
        if config.temporal_frames and not shape.crosses:
            raise ConfigError(
                f"adapter.temporal_frames is {config.temporal_frames}, but nothing in this base reads a video's tokens "
                "together: set it to 0"
            )
        if shape.shares_width and not shape.queries:
            for index in range(max(shape.vision_layers, shape.text_layers)):
                uses = (vision if index < shape.vision_layers else []) + (text if index < shape.text_layers else [])
                self.layers.append(self._adapter(shape.vision_width, uses))
        else:
            if config.factor and vision and text:
                both = min(shape.vision_layers, shape.text_layers)
                self.factors.extend(nn.Linear(config.factor, config.bottleneck) for _ in range(both))
            own = (["vision"] if shape.queries and config.text else []) + text
            for layers, depth, width, uses in (
                (self.vision_layers, shape.vision_layers, shape.vision_width, vision),
                (self.layers, shape.text_layers, shape.text_width, own),
            ):
                for index in range(depth):
                    factor = self.factors[index] if index < len(self.factors) else None
                    has_cross = index % shape.cross_every == 0
                    here = [use for use in uses if use != "cross" or has_cross]
                    layers.append(self._adapter(width, here, factor))  # type: ignore[arg-type]
        if config.decoder == "separate":
            if not (shape.decoder_source and shape.encoder):
                raise ConfigError("adapter.decoder is separate, but this model has no decoder beside its encoder")
            self.decoder_layers.extend(self._adapter(shape.text_width, text) for _ in range(shape.text_layers))

    def adapter(self, role: Literal["vision", "encoder", "decoder"], index: int, use: Use) -> UniAdapter | None:
        """The adapter of one layer, or None where this set leaves that use of it alone."""
        layers = self.layers
        if role == "vision" and len(self.vision_layers):
            layers = self.vision_layers
        if role == "decoder" and len(self.decoder_layers):
            layers = self.decoder_layers
        adapter = layers[index]
        return adapter if isinstance(adapter, UniAdapter) and use in adapter.uses else None

    def key_value(self, role: Literal["encoder", "decoder"], states: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """The deltas of keys and values [..., d_text] for the attended states [..., d], or (None, None)."""
        if not hasattr(self, f"{role}_key"):
            return None, None
        return getattr(self, f"{role}_key")(states), getattr(self, f"{role}_value")(states)

    def adapter_parameters(self) -> int:
        """How many parameters stand in the adapters alone: no heads."""
        other = [*self.heads.parameters(), *self.scalars.parameters()]
        return sum(p.numel() for p in self.parameters()) - sum(p.numel() for p in other)

    def plan(self) -> list[str]:
        """What is built and shared with what, a line each, for people."""
        config, shape = self.config, self.shape
        vision = ["vision"] if config.vision else []
        crosses = config.cross and shape.crosses
        text = [name for name, on in (("text", config.text), ("cross-attention", crosses)) if on]
        spans: list[tuple[str, int, int, list[str]]] = []
        lines = []
        if self.vision_layers:
            spans.append(("vision ", 0, shape.vision_layers, vision))
            spans.append(("text ", 0, shape.text_layers, (["queries"] if shape.queries and config.text else []) + text))
            if not shape.shares_width:
                apart = "share a factor of their down-projections" if self.factors else "have down-projections apart"
                lines.append(f"widths differ (vision {shape.vision_width}, text {shape.text_width}), so they {apart}")
        else:
            both = min(shape.vision_layers, shape.text_layers)
            spans.append(("", 0, both, vision + text))
            spans.append(("", both, shape.vision_layers, vision))
            spans.append(("", both, shape.text_layers, text))
        if config.decoder == "separate":
            spans.append(("decoder ", 0, shape.text_layers, text))
        for stack, start, stop, uses in spans:
            if start < stop and uses:
                last = f"s {start}-{stop - 1}" if stop - start > 1 else f" {start}"
                named = " and ".join(filter(None, [", ".join(uses[:-1]), uses[-1]]))
                lines.append(f"{stack}layer{last}: one adapter each for {named}, r = {config.bottleneck}")
        if config.key_value and shape.crosses:
            lines.append(f"keys and values of cross-attention: one pair of width {config.key_value} a text model")
        if not shape.crosses and (config.cross or config.key_value):
            lines.append("no cross-attention in this base, so no cross and no key/value adapters")
        if self.heads:
            lines.append("heads: " + ", ".join(self.heads))
        return lines
