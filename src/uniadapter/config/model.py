"""Settings of the base model and of the adapters."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Annotated, Any, Literal

from pydantic import Field

from uniadapter.config.checks import Count, File, Text, require, validate_fields
from uniadapter.errors import ConfigError
from uniadapter.files.messages import did_you_mean

Init = Literal["identity", "released"]
Share = Literal["all", "down", "up", "none"]
Activation = Literal["relu", "gelu", "none"]
TemporalInit = Literal["zeros", "left_to_right"]
Method = Literal["uniadapter", "full", "last_layers", "bitfit", "heads", "lora", "dora", "none"]
METHOD_NAMES = {"full": "full_fine_tuning", "none": "zero_shot"}  # in `metrics.json`, where they differ
Width = Annotated[int, Field(ge=0, le=16384)]


@dataclass
class AdapterConfig:
    """The shape of one named set of adapters; saved as `uniadapter_config.json` beside its weights.

    Args:
        bottleneck: r, the width between down- and up-projection (128 or 512 in the paper).
        scale: s, the factor on every adapter's output (0.1 in the paper and the released code).
        init: "identity" starts at exactly the base model; "released" initialises as the authors' code does: only the
            text up-projection is zero.
        activation: between an adapter's projections: "relu" is the paper's; with "none" it is linear but for its norms.
        vision: adapters in the visual encoder.
        text: adapters after the text encoder's feed-forward (the query residual where text is fused with a visual); in
            a Q-Former also after its queries' feed-forward.
        cross: adapters on the cross-attention's output; they reuse the text up-projection.
        query_residual: where text is fused with a visual, its states before the cross-attention pass through the text
            adapter (a Q-Former's queries through their own) to the layer's output.
        share: what the vision, text and cross adapters of a layer have in common: "all" is the paper's, one
            down-projection, and cross adapters reuse the text up-projection; "down" and "up" are one of the two;
            "none" gives every use an adapter of its own.
        train_norm_cross: false leaves the LayerNorm of cross adapters as it starts, as the released code does by
            accident; needs `init: released`, from which alone it is no zero.
        key_value: width of the low-rank adapters on the keys and values of every cross-attention layer
            (64 in the released configs); 0 leaves them out.
        self_attention: width of the low-rank adapters on the queries, keys and values of self-attention, one for each
            layer of a text model; 0 leaves them out, as the paper does. BLIP has them, other families have not.
        frame_aware: parameter-free frame-aware attention (paper, video).
        frame_temperature: of the softmax by which a text weighs the frames; null takes 4, as released, which leaves
            cosines nearly equal weights, and 0.1 where two towers are compared. Lower tells frames apart.
        temporal_frames: length of the learned temporal embedding; 0 leaves it out. In full fine-tuning the model gets
            one of its own; all other settings of adapters have no effect there.
        temporal_init: "zeros" as released, or "left_to_right", the base's own direction from left to right, two
            pictures' widths a frame, so that what it knows of places is known of times (not in the paper).
        decoder: "shared" lets an answer decoder use the encoder's adapters (as released), "separate" gives it
            its own.
        heads: train a copy of the task's heads (projections, matching head) with the adapters.
        factor: where vision and text differ in width, rank of a factor that their two down-projections share; 0 shares
            nothing. Not in the paper, whose base has one width.
    """

    bottleneck: Annotated[int, Field(ge=1, le=16384)] = 128
    scale: Annotated[float, Field(gt=0, le=1000)] = 0.1
    init: Init = "identity"
    activation: Activation = "relu"
    vision: bool = True
    text: bool = True
    cross: bool = True
    query_residual: bool = True
    share: Share = "all"
    train_norm_cross: bool = True
    key_value: Width = 64
    self_attention: Width = 0
    frame_aware: bool = False
    frame_temperature: Annotated[float, Field(gt=0, le=1000)] | None = None
    temporal_frames: Annotated[int, Field(ge=0, le=1024)] = 0
    temporal_init: TemporalInit = "zeros"
    decoder: Literal["shared", "separate"] = "shared"
    heads: bool = True
    factor: Width = 0

    def __post_init__(self) -> None:
        validate_fields(self, "adapter")
        some = self.vision or self.text or self.cross or self.key_value > 0 or self.self_attention > 0
        require(some, "adapter: vision, text, cross, key_value and self_attention are all off, so nothing would be "
                "adapted")  # fmt: skip
        kept_zero = self.cross and not self.train_norm_cross and self.init == "identity"
        require(not kept_zero, "adapter.train_norm_cross is false, and with init: identity the cross adapters would "
                "stay zero: set init to released")  # fmt: skip
        shares_down = self.share in ("all", "down") or not self.factor
        require(shares_down, f"adapter.share is {self.share}, which shares no factor: set adapter.factor to 0")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as in `uniadapter_config.json`."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> AdapterConfig:
        """The config from plain values.

        Raises:
            ConfigError: a key is unknown or a value invalid.
        """
        require(isinstance(values, dict), f"adapter settings are {values!r}: they must be an object of keys and values")
        known = [one.name for one in fields(cls)]
        for name in values:
            if name not in known:
                raise ConfigError(f"unknown adapter setting {name!r}{did_you_mean(str(name), known)}")
        return cls(**values)


@dataclass
class LoraSettings:
    """PEFT's LoRA on every linear layer of all encoders and decoders, to compare with (`method: lora` or `dora`).

    Args:
        r: rank.
        alpha: its changes are multiplied by alpha / r.
        dropout: before the down-projection.
    """

    r: Annotated[int, Field(ge=1, le=4096)] = 8
    alpha: Annotated[float, Field(gt=0, le=65536)] = 16.0
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0

    def __post_init__(self) -> None:
        validate_fields(self, "lora")


@dataclass
class ModelConfig:
    """The base model, and how it is adapted.

    Args:
        base: hub id, folder of transformers files, one of BLIP's `.pth` files, or `embedded`, the small BLIP that ships
            with this package.
        method: "uniadapter" trains adapters on a frozen base, "full" every weight, "last_layers" the last layers of
            each encoder and decoder, "bitfit" the biases, "heads" the task's heads alone, which all of these train
            too; "lora" and "dora" are PEFT's; "none" trains nothing (zero-shot).
        adapter: the adapters' shape.
        lora: of LoRA and DoRA.
        last_layers: how many of each encoder and decoder.
        image_size: side of the square input pictures in pixels; null takes the base model's.
        max_tokens: texts are padded or truncated to at most this many tokens.
        prompt: beginning of every caption, given to the decoder.
        checkpoint_vision: gradient checkpointing of the visual layers: less memory, more computation.
        frame_chunk: frames per forward pass of the visual encoder; 0 means all.
    """

    base: File = "embedded"
    method: Method = "uniadapter"
    adapter: AdapterConfig = field(default_factory=AdapterConfig)
    lora: LoraSettings = field(default_factory=LoraSettings)
    last_layers: Annotated[int, Field(ge=1, le=1024)] = 1
    image_size: Annotated[int, Field(ge=1, le=4096)] | None = None
    max_tokens: Annotated[int, Field(ge=3, le=8192)] = 35
    prompt: Text = "a picture of "
    checkpoint_vision: bool = False
    frame_chunk: Count = 0

    def __post_init__(self) -> None:
        validate_fields(self, "model")

    @property
    def method_name(self) -> str:
        """The method as `metrics.json` calls it."""
        return METHOD_NAMES.get(self.method, self.method)
