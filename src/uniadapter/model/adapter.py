"""UniAdapter's equations in pure PyTorch (arXiv 2302.06605, section 3; docs/method.md maps each to its lines).

One adapter per layer index is shared by the visual encoder, the text encoder and their cross-attention:

    h(x)         = ReLU(W_down LN_in(x) + b_down)
    A(x, vision) = s (W_vision h + b_vision)
    A(x, text)   = s (W_text h + b_text)
    A(x, cross)  = s LN_cross(W_cross h + b_cross + W_text h + b_text)     partial weight sharing

`activation` may put another function in the place of ReLU (not in the paper).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Literal

import torch
from torch import Tensor, nn

from uniadapter.config import Activation, Init

Use = Literal["vision", "text", "cross"]
ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "gelu": nn.functional.gelu,
    "none": lambda x: x,
}
QueryKeyValue = tuple[Tensor | None, Tensor | None, Tensor | None]  # what is added to each of the three


def to_dtype_of(x: Tensor, weight: Tensor) -> Tensor:
    """X in the dtype of `weight`, unless autocast is on; adapters are float32 on a base in half precision."""
    return x if x.dtype == weight.dtype or torch.is_autocast_enabled(x.device.type) else x.to(weight.dtype)


class UniAdapter(nn.Module):
    """One adapter with a shared down-projection and an up-projection for each use.

    Args:
        width: d, hidden size of the states that it reads and adds to.
        bottleneck: r, width between the projections.
        scale: s, factor on every output.
        uses: which of "vision", "text", "cross" it is for; no weights are created for the others.
        init: "identity" makes every output exactly 0 at the start. For the cross use that is done by a zero gain
            on LN_cross over a random up-projection: zeros *under* a LayerNorm would get gradients 1/sqrt(eps),
            about 300 times, too large. "released" zeroes the text up-projection alone, as the authors' code does.
        factor: a linear layer from f to r that is shared with adapters of another width: W_down = W_factor W_own. Not
            in the paper; for encoders of different widths. The `AdapterSet` owns it, it is not registered here.
        reuse_text: whether the cross use adds W_text to W_cross.
        text_up: W_text of another adapter, which owns it, for the cross use to add; None for this adapter's own.
        activation: between the projections.
    """

    def __init__(
        self,
        width: int,
        bottleneck: int,
        scale: float = 0.1,
        uses: Iterable[Use] = ("vision", "text", "cross"),
        init: Init = "identity",
        factor: nn.Linear | None = None,
        reuse_text: bool = True,
        text_up: nn.Linear | None = None,
        activation: Activation = "relu",
    ) -> None:
        super().__init__()
        self.uses = frozenset(uses)
        self.reuse_text = reuse_text
        self.activation: Activation = activation
        self._text_up = [] if text_up is None else [text_up]  # in a list, as `_factor`
        self.scale = scale
        self.norm = nn.LayerNorm(width)
        self._factor = [] if factor is None else [factor]  # in a list, so that torch does not register it here
        self.down = nn.Linear(width, bottleneck) if factor is None else nn.Linear(width, factor.in_features, bias=False)
        if "vision" in self.uses:
            self.up_vision = nn.Linear(bottleneck, width)
        if "text" in self.uses or ("cross" in self.uses and reuse_text and text_up is None):
            self.up_text = nn.Linear(bottleneck, width)
        if "cross" in self.uses:
            self.up_cross = nn.Linear(bottleneck, width)
            self.norm_cross = nn.LayerNorm(width)
        self._initialise(init)

    def _initialise(self, init: Init) -> None:
        nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
        for biased in (self.down, *self._factor):
            if biased.bias is not None:
                nn.init.zeros_(biased.bias)
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
        """Compute the adapter's output, to be added to the layer's.

        Args:
            x: states [..., d].
            use: which up-projection to apply.

        Returns:
            A(x, use), [..., d], in the dtype of x; computed in the dtype of the adapter's weights.

        Raises:
            ValueError: this adapter was not built for that use.
        """
        if use not in self.uses:
            raise ValueError(f"this adapter is for {', '.join(sorted(self.uses))}, not for {use}")
        inner = to_dtype_of(x, self.down.weight)
        delta = self._delta(inner, use)
        return delta if inner is x else delta.to(x.dtype)

    def _delta(self, x: Tensor, use: Use) -> Tensor:
        down = self.down(self.norm(x))
        for factor in self._factor:
            down = factor(down)
        h = ACTIVATIONS[self.activation](down)
        if use == "vision":
            return self.scale * self.up_vision(h)
        if use == "text":
            return self.scale * self.up_text(h)
        weight, bias = self.up_cross.weight, self.up_cross.bias
        if self.reuse_text:  # W_cross h + W_text h is one matrix multiplication with the summed weights: half the work
            text = self._text_up[0] if self._text_up else self.up_text
            weight, bias = weight + text.weight, bias + text.bias
        return self.scale * self.norm_cross(nn.functional.linear(h, weight, bias))


class KeyValueAdapter(nn.Module):
    """x -> scale * up(down x): a low-rank linear map, added to the keys or the values of all cross-attention layers.

    Source: the authors' released code (one pair of them for the whole text model, on the visual tokens).

    Args:
        width_in: hidden size of the states attended to.
        bottleneck: width between the two projections (64 in the released code).
        width_out: width of the keys or values.
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
        """What to add to the keys or values, [..., width_out], for states x [..., width_in]."""
        inner = to_dtype_of(x, self.down.weight)
        delta = self.up(self.down(inner))
        # The scale in the output's dtype: a float32 scale would turn autocast's outputs, and all keys, to float32.
        delta = delta * self.scale.to(delta.dtype)
        return delta if inner is x else delta.to(x.dtype)


class SelfAttentionAdapter(nn.Module):
    """Low-rank linear maps that are added to the queries, keys and values of one self-attention layer.

    The three share a down-projection, as the uses of a `UniAdapter` do: x -> W_query h, W_key h, W_value h for h =
    W_down x + b_down, with a bias each. Not in the paper. All start at exactly 0.

    Args:
        width: d, hidden size of the states, queries, keys and values.
        bottleneck: width between the projections.
    """

    def __init__(self, width: int, bottleneck: int) -> None:
        super().__init__()
        self.down = nn.Linear(width, bottleneck)
        self.up = nn.Linear(bottleneck, 3 * width)  # to queries, keys and values, in this order
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor) -> QueryKeyValue:
        """What to add to queries, keys and values, [..., d] each, for states x [..., d]."""
        inner = to_dtype_of(x, self.down.weight)
        delta = self.up(self.down(inner))
        query, key, value = (delta if inner is x else delta.to(x.dtype)).chunk(3, dim=-1)
        return query, key, value
