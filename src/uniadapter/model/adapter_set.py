"""An adapter set: all weights that are trained, saved and selected under one name."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from uniadapter.config import AdapterConfig, ConfigError
from uniadapter.model.adapter import KeyValueAdapter, QueryKeyValue, SelfAttentionAdapter, UniAdapter, Use
from uniadapter.model.frame_attention import frame_weights
from uniadapter.model.plan import plan_lines
from uniadapter.model.settings import NO_SETTINGS, InferenceSettings
from uniadapter.model.shape import BackboneShape, check_reads_frames

logger = logging.getLogger(__name__)

TextRole = Literal["encoder", "decoder"]
Role = Literal["vision", "encoder", "decoder"]  # the part of the model that a layer is in

# From module names here to names in adapter files. Modules called `key` and `value` would match PEFT's target_modules.
_IN_FILES = {"encoder_key.": "key.", "encoder_value.": "value."}


def file_name(name: str) -> str:
    """The name in an adapter file of a tensor of `AdapterSet.state_dict()`."""
    here = next((here for here in _IN_FILES if name.startswith(here)), "")
    return _IN_FILES.get(here, "") + name.removeprefix(here)


class AdapterSet(nn.Module):
    """Adapters, key/value adapters, temporal embedding and heads that are trained and saved together.

    Its state dict has the names of an adapter file, except for `file_name`; `load_state_dict` takes both. Layers look
    up their adapter by role and index, and get None where the config leaves one out.

    Args:
        config: which adapters there are, and their sizes.
        shape: sizes of the backbone.
        heads: the base's heads by name; the set trains copies, the base's own do not change.
        scalars: learnable numbers of the base's contrastive loss by name (`logit_scale`, `logit_bias`); also copied.

    Attributes:
        settings: the inference settings that the set was trained with; those of its folder if it was loaded.
        momentum_of: name of the set whose moving average this one is; None for a set that is trained.

    Raises:
        ConfigError: a head is quantised, or a separate decoder adapter is asked of a model without a decoder.
    """

    settings: InferenceSettings = NO_SETTINGS
    momentum_of: str | None = None

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
        self.self_attention = nn.ModuleList()
        self.decoder_self_attention = nn.ModuleList()
        self._build_self_attention()
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
                copied = nn.Linear(
                    linear.in_features,
                    linear.out_features,
                    bias=linear.bias is not None,
                    device=linear.weight.device,
                    dtype=linear.weight.dtype,
                )
                copied.load_state_dict(linear.state_dict())
                self.heads[name] = copied
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
        """The contrastive temperature as a parameter of this set.

        Args:
            start: its first value; ignored where the set has a temperature from earlier training.
        """
        if self.temperature is None:
            some = next(self.parameters())
            self.temperature = nn.Parameter(torch.tensor(start, dtype=some.dtype, device=some.device))
        return self.temperature

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        if not any(key.startswith(prefix) for key in state_dict):
            logger.warning("the state dict holds no adapter %r, which keeps its weights", prefix.strip("."))
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
            return nn.Identity()  # keeps the indices of later layers; no parameters, never called
        config = self.config
        sizes, reuse_text = (width, config.bottleneck, config.scale), config.share in ("all", "up")
        if config.share in ("all", "down"):
            return UniAdapter(*sizes, uses, config.init, factor, reuse_text, activation=config.activation)
        own: dict[str, UniAdapter] = {}
        for use in uses:
            text_up = own["text"].up_text if use == "cross" and "text" in own else None
            own[use] = UniAdapter(*sizes, [use], config.init, None, reuse_text, text_up, config.activation)
        return nn.ModuleDict(own)

    def _build_layers(self) -> None:
        config, shape = self.config, self.shape
        vision: list[Use] = ["vision"] if config.vision else []
        text: list[Use] = ["text"] if config.text else []
        text += ["cross"] if config.cross and shape.crosses else []
        if not (shape.crosses or vision or text):
            raise ConfigError("adapter: vision and text are off, and this base has no cross-attention to adapt")
        check_reads_frames(config.temporal_frames, shape)
        if shape.shares_width and not shape.queries:
            for index in range(max(shape.vision_layers, shape.text_layers)):
                uses = (vision if index < shape.vision_layers else []) + (text if index < shape.text_layers else [])
                self.layers.append(self._adapter(shape.vision_width, uses))
        else:
            if config.factor and vision and text:
                both = min(shape.vision_layers, shape.text_layers)
                self.factors.extend(nn.Linear(config.factor, config.bottleneck) for _ in range(both))
            own = (["vision"] if shape.queries and config.text and config.query_residual else []) + text
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

    def _build_self_attention(self) -> None:
        width, shape = self.config.self_attention, self.shape
        if not width:
            return
        if not shape.attends_itself:
            raise ConfigError(
                f"adapter.self_attention is {width}, but this family of models has no adapters in self-attention (see "
                "`uniadapter families`): set it to 0"
            )
        for layers in (self.self_attention, *([self.decoder_self_attention] if len(self.decoder_layers) else [])):
            layers.extend(SelfAttentionAdapter(shape.text_width, width) for _ in range(shape.text_layers))

    def adapter(self, role: Role, index: int, use: Use, residual: bool = False) -> UniAdapter | None:
        """The adapter of a layer for a use, or None where this set has none.

        Args:
            role: the part of the model that the layer is in.
            index: of the layer in that part.
            use: what the adapter's output is for.
            residual: it is a query residual, which `adapter.query_residual` may leave out.
        """
        if residual and not self.config.query_residual:
            return None
        layers = self.layers
        if role == "vision" and len(self.vision_layers):
            layers = self.vision_layers
        if role == "decoder" and len(self.decoder_layers):
            layers = self.decoder_layers
        adapter = layers[index]
        if isinstance(adapter, nn.ModuleDict) and use in adapter:  # each use has its own
            adapter = adapter[use]
        return adapter if isinstance(adapter, UniAdapter) and use in adapter.uses else None

    def key_value_adapters(self, role: TextRole) -> tuple[KeyValueAdapter | None, KeyValueAdapter | None]:
        """The adapters on keys and values of cross-attention, or (None, None)."""
        return getattr(self, f"{role}_key", None), getattr(self, f"{role}_value", None)

    def key_value(self, role: TextRole, states: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """What to add to keys and values, [..., d_text] each, for attended states [..., d]; or (None, None)."""
        key, value = self.key_value_adapters(role)
        return (None, None) if key is None or value is None else (key(states), value(states))

    def head(self, name: str) -> nn.Linear | None:
        """The trained copy of a head of the base, or None."""
        return self.heads._modules.get(name)  # type: ignore[return-value]

    def temporal(self, frames: int) -> Tensor | None:
        """The temporal embedding, [1, frames, d], interpolated from the number of training; None without one."""
        time = getattr(self, "time", None)
        return None if time is None else resized(time, frames)

    def frame_weights(self, texts: Tensor, frames: Tensor, default: float) -> Tensor | None:
        """The weights of frame-aware attention, [P, T], see `frame_weights`; None where it is off.

        Args:
            texts: unit features [P, e].
            frames: of the videos in the pairs, [P, T, e].
            default: the family's temperature, where the config names none.
        """
        if not self.config.frame_aware:
            return None
        stated = self.config.frame_temperature
        return frame_weights(texts, frames, default if stated is None else stated)

    def self_adapter(self, role: TextRole, index: int) -> SelfAttentionAdapter | None:
        """The adapter in a layer's self-attention, or None."""
        apart = role == "decoder" and len(self.decoder_self_attention)
        layers = self.decoder_self_attention if apart else self.self_attention
        return layers[index] if len(layers) else None  # type: ignore[return-value]

    def self_deltas(self, role: TextRole, index: int, states: Tensor) -> QueryKeyValue:
        """What to add to queries, keys and values of a layer's self-attention, for states [..., d]; or Nones."""
        adapter = self.self_adapter(role, index)
        return (None, None, None) if adapter is None else adapter(states)

    def requires_grad_(self, requires_grad: bool = True) -> AdapterSet:
        """As `nn.Module`'s, except for what the config leaves as it is."""
        super().requires_grad_(requires_grad)
        for module in self.modules():
            if isinstance(module, UniAdapter) and "cross" in module.uses and not self.config.train_norm_cross:
                module.norm_cross.requires_grad_(False)
        return self

    def adapter_parameters(self) -> int:
        """Number of parameters without heads and scalars."""
        other = [*self.heads.parameters(), *self.scalars.parameters()]
        return sum(p.numel() for p in self.parameters()) - sum(p.numel() for p in other)

    def plan(self) -> list[str]:
        """Which adapters there are and what they share, as lines for the log."""
        return plan_lines(self.config, self.shape, bool(self.vision_layers), bool(self.factors), list(self.heads))


def resized(time: Tensor, frames: int) -> Tensor:
    """A temporal embedding [1, T, d], interpolated to another number of frames."""
    if time.shape[1] == frames:
        return time
    return nn.functional.interpolate(time.transpose(1, 2), size=frames, mode="linear").transpose(1, 2)
