"""What an adapter set has and shares, in words for the log."""

from __future__ import annotations

from uniadapter.config import AdapterConfig
from uniadapter.model.shape import BackboneShape


def plan_lines(config: AdapterConfig, shape: BackboneShape, apart: bool, factors: bool, heads: list[str]) -> list[str]:
    """Which adapters a set has and what they share.

    Args:
        config: of the set.
        shape: of the backbone.
        apart: whether vision and text have adapters of their own.
        factors: whether these share factors of their down-projections.
        heads: names of the heads that it trains.
    """
    lines = []
    if apart and not shape.shares_width:
        which = "share a factor of their down-projections" if factors else "have separate down-projections"
        lines.append(f"widths differ (vision {shape.vision_width}, text {shape.text_width}), so they {which}")
    each = "one adapter each for" if config.share in ("all", "down") else "an adapter for each of"
    for stack, start, stop, uses in _spans(config, shape, apart):
        if start < stop and uses:
            last = f"s {start}-{stop - 1}" if stop - start > 1 else f" {start}"
            named = " and ".join(filter(None, [", ".join(uses[:-1]), uses[-1]]))
            between = {"relu": "", "gelu": ", GELU", "none": ", linear"}[config.activation]
            lines.append(f"{stack}layer{last}: {each} {named}, r = {config.bottleneck}{between}")
    if config.self_attention:
        own = ", others in the decoder" if config.decoder == "separate" else ""
        each = f"one adapter of width {config.self_attention} a layer{own}"
        lines.append(f"queries, keys and values of text self-attention: {each}")
    return lines + _of_fusion(config, shape.crosses) + (["heads: " + ", ".join(heads)] if heads else [])


def _spans(config: AdapterConfig, shape: BackboneShape, apart: bool) -> list[tuple[str, int, int, list[str]]]:
    """The stack, the first layer, the one behind the last, and the uses of layers with the same adapters."""
    vision = ["vision"] if config.vision else []
    every = f" (every {shape.cross_every} layers)" if shape.cross_every > 1 else ""
    crosses = config.cross and shape.crosses
    text = [name for name, on in (("text", config.text), (f"cross-attention{every}", crosses)) if on]
    spans: list[tuple[str, int, int, list[str]]] = []
    if apart:
        spans.append(("vision ", 0, shape.vision_layers, vision))
        queries = ["queries"] if shape.queries and config.text and config.query_residual else []
        spans.append(("text ", 0, shape.text_layers, queries + text))
    else:
        both = min(shape.vision_layers, shape.text_layers)
        spans.append(("", 0, both, vision + text))
        spans.append(("", both, shape.vision_layers, vision))
        spans.append(("", both, shape.text_layers, text))
    if config.decoder == "separate":
        spans.append(("decoder ", 0, shape.text_layers, text))
    return spans


def _of_fusion(config: AdapterConfig, crosses: bool) -> list[str]:
    """What is said of cross-attention."""
    lines = []
    if crosses and config.cross and config.share in ("down", "none"):
        lines.append("cross-attention does not reuse the text up-projection")
    if crosses and config.text and not config.query_residual:
        lines.append("no query residual: what attends to a visual does not pass its own adapter on")
    if crosses and config.key_value:
        lines.append(f"keys and values of cross-attention: one pair of width {config.key_value} a text model")
    if not crosses and (config.cross or config.key_value):
        lines.append("no cross-attention in this base, so no cross and no key/value adapters")
    return lines
