"""UniAdapter's equations, in pure torch (arXiv 2302.06605, section 3; ../docs/method.md maps each to its lines).

One adapter per layer index is shared by the visual encoder, the text encoder and their cross-attention:

    h(x)         = ReLU(W_down LN_in(x) + b_down)
    A(x, vision) = s (W_vision h + b_vision)
    A(x, text)   = s (W_text h + b_text)
    A(x, cross)  = s LN_cross(W_cross h + b_cross + W_text h + b_text)     partial weight sharing
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from uniadapter.config import AdapterConfig, ConfigError, Init
from uniadapter.model.settings import NO_SETTINGS, InferenceSettings

logger = logging.getLogger(__name__)

Use = Literal["vision", "text", "cross"]

# What modules are called in files. In a model `key` and `value` would be taken for the base's own by whoever looks for
# those names, as PEFT does.
_IN_FILES = {"encoder_key.": "key.", "encoder_value.": "value."}


def file_name(name: str) -> str:
    """What a tensor of a set's state dict is called in an adapter file."""
    here = next((here for here in _IN_FILES if name.startswith(here)), "")
    return _IN_FILES.get(here, "") + name.removeprefix(here)


def lifted(x: Tensor, weight: Tensor) -> Tensor:
    """States in the dtype of weights that are finer than the base's, unless autocast decides."""
    return x if x.dtype == weight.dtype or torch.is_autocast_enabled(x.device.type) else x.to(weight.dtype)


class UniAdapter(nn.Module):
    """One adapter with a shared down-projection and an up-projection for each use.

    Args:
        width: d, of the states it reads and adds to.
        bottleneck: r.
        scale: s.
        uses: which of "vision", "text", "cross" it serves; what a use does not need is not built.
        init: "identity" makes every output exactly 0 at the start. For the cross use that is done by a zero gain
            on LN_cross over a random up-projection: zeros *under* a LayerNorm would get gradients 1/sqrt(eps),
            about 300 times, too large. "released" zeroes the text up-projection alone, as the authors' code does.
    """

    def __init__(
        self,
        width: int,
        bottleneck: int,
        scale: float = 0.1,
        uses: Iterable[Use] = ("vision", "text", "cross"),
        init: Init = "identity",
    ) -> None:
        super().__init__()
        self.uses = frozenset(uses)
        self.scale = scale
        self.norm = nn.LayerNorm(width)
        self.down = nn.Linear(width, bottleneck)
        if "vision" in self.uses:
            self.up_vision = nn.Linear(bottleneck, width)
        if self.uses & {"text", "cross"}:  # the cross use reads the text up-projection too
            self.up_text = nn.Linear(bottleneck, width)
        if "cross" in self.uses:
            self.up_cross = nn.Linear(bottleneck, width)
            self.norm_cross = nn.LayerNorm(width)
        self._initialise(init)

    def _initialise(self, init: Init) -> None:
        nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
        nn.init.zeros_(self.down.bias)
        zeroed = [getattr(self, "up_text", None)]
        if init == "identity":
            zeroed.append(getattr(self, "up_vision", None))
            if "cross" in self.uses:
                nn.init.zeros_(self.norm_cross.weight)
        for linear in zeroed:
            if linear is not None:
                nn.init.zeros_(linear.weight)
                nn.init.zeros_(linear.bias)

    def forward(self, x: Tensor, use: Use) -> Tensor:
        """The delta to add.

        Args:
            x: states [..., d].
            use: whose up-projection to apply.

        Returns:
            A(x, use), [..., d], in the dtype of x; on a base in half precision it is computed in its own, float32.

        Raises:
            ValueError: this adapter was not built for that use.
        """
        if use not in self.uses:
            raise ValueError(f"this adapter serves {', '.join(sorted(self.uses))}, not {use}")
        inner = lifted(x, self.down.weight)
        delta = self._delta(inner, use)
        return delta if inner is x else delta.to(x.dtype)

    def _delta(self, x: Tensor, use: Use) -> Tensor:
        h = torch.relu(self.down(self.norm(x)))
        if use == "vision":
            return self.scale * self.up_vision(h)
        if use == "text":
            return self.scale * self.up_text(h)
        # W_cross h + W_text h is one product with the summed weights: half the work on the long axis.
        weight = self.up_cross.weight + self.up_text.weight
        bias = self.up_cross.bias + self.up_text.bias
        return self.scale * self.norm_cross(nn.functional.linear(h, weight, bias))


class KeyValueAdapter(nn.Module):
    """x -> scale * up(down x), a linear low-rank delta for the keys or values of all cross-attention layers.

    Args:
        width_in: d of the states attended to.
        bottleneck: width between the two projections (64 released).
        width_out: d of the keys or values.
        init: "identity" zeroes the up-projection; "released" keeps torch's default draw.
    """

    def __init__(self, width_in: int, bottleneck: int, width_out: int, init: Init = "identity") -> None:
        super().__init__()
        self.down = nn.Linear(width_in, bottleneck)
        self.up = nn.Linear(bottleneck, width_out)
        self.scale = nn.Parameter(torch.ones(1))
        if init == "identity":
            nn.init.zeros_(self.up.weight)
            nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor) -> Tensor:
        """The delta of the keys or values [..., width_out] for states x [..., width_in]."""
        inner = lifted(x, self.down.weight)
        delta = self.up(self.down(inner))
        # In its own dtype, or autocast's deltas, and with them all keys, became float32 again.
        delta = delta * self.scale.to(delta.dtype)
        return delta if inner is x else delta.to(x.dtype)


@dataclass(frozen=True)
class BackboneShape:
    """What an adapter set must know of a backbone.

    Args:
        vision_layers: depth of the visual encoder.
        vision_width: its hidden size.
        text_layers: depth of the text encoder (or of the decoder, where that is the only text model).
        text_width: its hidden size.
        encoder: the model has a text encoder, whose cross-attention reads visual tokens.
        decoder_source: width of the states that an answer or caption decoder attends to; 0 without a decoder.
    """

    vision_layers: int
    vision_width: int
    text_layers: int
    text_width: int
    encoder: bool = True
    decoder_source: int = 0

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

    `settings` is what it must be asked with, see `InferenceSettings`: of a loaded adapter what its folder says.
    """

    settings: InferenceSettings = NO_SETTINGS
    momentum_of: str | None = None  # name of the set whose moving average this one is

    def __init__(self, config: AdapterConfig, shape: BackboneShape, heads: dict[str, nn.Linear]) -> None:
        super().__init__()
        self.config = config
        self.shape = shape
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

    def _adapter(self, width: int, uses: list[Use]) -> nn.Module:
        if not uses:
            return nn.Identity()  # keeps the index of the layers behind it; no parameters, never called
        return UniAdapter(width, self.config.bottleneck, self.config.scale, uses, self.config.init)

    def _build_layers(self) -> None:
        config, shape = self.config, self.shape
        vision: list[Use] = ["vision"] if config.vision else []
        text: list[Use] = ["text"] if config.text else []
        text += ["cross"] if config.cross else []
        if shape.shares_width:
            for index in range(max(shape.vision_layers, shape.text_layers)):
                uses = (vision if index < shape.vision_layers else []) + (text if index < shape.text_layers else [])
                self.layers.append(self._adapter(shape.vision_width, uses))
        else:
            self.vision_layers.extend(self._adapter(shape.vision_width, vision) for _ in range(shape.vision_layers))
            self.layers.extend(self._adapter(shape.text_width, text) for _ in range(shape.text_layers))
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
        return sum(p.numel() for p in self.parameters()) - sum(p.numel() for p in self.heads.parameters())

    def plan(self) -> list[str]:
        """What is built and shared with what, a line each, for people."""
        config, shape = self.config, self.shape
        vision = ["vision"] if config.vision else []
        text = [name for name, on in (("text", config.text), ("cross-attention", config.cross)) if on]
        spans: list[tuple[str, int, int, list[str]]] = []
        lines = []
        if shape.shares_width:
            both = min(shape.vision_layers, shape.text_layers)
            spans.append(("", 0, both, vision + text))
            spans.append(("", both, shape.vision_layers, vision))
            spans.append(("", both, shape.text_layers, text))
        else:
            lines.append(
                f"widths differ (vision {shape.vision_width}, text {shape.text_width}), so down-projections cannot be "
                "shared between them"
            )
            spans.append(("vision ", 0, shape.vision_layers, vision))
            spans.append(("text ", 0, shape.text_layers, text))
        if config.decoder == "separate":
            spans.append(("decoder ", 0, shape.text_layers, text))
        for stack, start, stop, uses in spans:
            if start < stop and uses:
                last = f"s {start}-{stop - 1}" if stop - start > 1 else f" {start}"
                named = " and ".join(filter(None, [", ".join(uses[:-1]), uses[-1]]))
                lines.append(f"{stack}layer{last}: one adapter each for {named}, r = {config.bottleneck}")
        if config.key_value:
            lines.append(f"keys and values of cross-attention: one pair of width {config.key_value} a text model")
        if self.heads:
            lines.append("heads: " + ", ".join(self.heads))
        return lines
