"""The sizes of a backbone that determine an adapter set's weights."""

from __future__ import annotations

from dataclasses import dataclass

from uniadapter.config import ConfigError


@dataclass(frozen=True)
class BackboneShape:
    """The sizes of a backbone that determine an adapter set's weights.

    Args:
        vision_layers: depth of the visual encoder.
        vision_width: its hidden size.
        text_layers: depth of the text encoder (or of the decoder, where that is the only text model).
        text_width: its hidden size.
        encoder: the model has a text encoder whose cross-attention reads visual tokens.
        decoder_source: width of the states that an answer or caption decoder attends to; 0 without a decoder.
        queries: learned queries pass through the text layers too, as in a Q-Former; they take the vision use of these
            layers' adapters, which `config.text` turns on: with `config.vision` off, the visual encoder then needs no
            backward pass.
        cross_every: every n-th text layer, from the first on, has a cross-attention.
        attends_itself: the family's text layers take adapters in their self-attention.
    """

    vision_layers: int
    vision_width: int
    text_layers: int
    text_width: int
    encoder: bool = True
    decoder_source: int = 0
    queries: bool = False
    cross_every: int = 1
    attends_itself: bool = False

    @property
    def crosses(self) -> bool:
        """Whether any text layer attends to visual tokens; cross and key/value adapters exist only there."""
        return self.encoder or self.decoder_source > 0

    @property
    def shares_width(self) -> bool:
        """Whether vision and text can use one down-projection."""
        return self.vision_width == self.text_width


def check_reads_frames(temporal_frames: int, shape: BackboneShape) -> None:
    """Refuse a temporal embedding where nothing attends to the tokens of several frames.

    Raises:
        ConfigError: there is one, and nothing would read it.
    """
    if temporal_frames and not shape.crosses:
        raise ConfigError(
            f"adapter.temporal_frames is {temporal_frames}, but nothing in this base reads a video's tokens "
            "together: set it to 0"
        )
