"""Image-text contrastive loss (ITC) with momentum features, a queue of earlier ones and soft targets.

Source: BLIP (arXiv 2201.12086, section 3.2, after ALBEF, arXiv 2107.07651, section 3.2), as UniAdapter's
released retrieval training uses it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EMPTY = -100  # id of a queue slot that has not been written yet; it is no row's positive


class FeatureQueue(nn.Module):
    """A ring buffer of the most recent momentum features and their ids, used as further negatives.

    As in the released code, slots start as random unit vectors, which count as negatives; their id is `EMPTY`. On
    several processes, each must enqueue the same gathered rows, so that the queues stay equal.

    Args:
        size: Q, number of slots; 0 for no queue.
        width: e, width of the features.
        seed: of the random vectors.

    Raises:
        ValueError: the size is negative.
    """

    visual: Tensor  # [Q, e] unit rows
    text: Tensor  # [Q, e] unit rows
    ids: Tensor  # [Q] int64
    pointer: Tensor  # [] int64, the slot written next

    def __init__(self, size: int, width: int, seed: int = 0) -> None:
        super().__init__()
        if size < 0:
            raise ValueError(f"the feature queue's size is {size}: it must be at least 0")
        generator = torch.Generator().manual_seed(seed)
        for name in ("visual", "text"):
            self.register_buffer(name, F.normalize(torch.randn(size, width, generator=generator), dim=-1))
        self.register_buffer("ids", torch.full((size,), EMPTY, dtype=torch.int64))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.int64))
        self._before: tuple[Tensor, ...] = ()  # slots and content that the last `enqueue` has overwritten

    @property
    def size(self) -> int:
        """Q, number of slots."""
        return self.ids.shape[0]

    @torch.no_grad()
    def enqueue(self, visual: Tensor, text: Tensor, ids: Tensor) -> None:
        """Overwrite the oldest slots with a batch.

        Args:
            visual: [n, e] momentum features, unit rows; of more than Q rows, the last Q are kept.
            text: [n, e] unit rows.
            ids: [n] int64, not negative; rows of one id are each other's positives.

        Raises:
            ValueError: the three differ in their number of rows.
        """
        count, size = ids.shape[0], self.size
        if visual.shape[0] != count or text.shape[0] != count:
            raise ValueError(
                f"enqueue got {visual.shape[0]} visual and {text.shape[0]} text features for {count} ids: "
                "give one of each per pair"
            )
        if size == 0:
            return
        kept = min(count, size)
        # Indices instead of slices: they wrap around, and the pointer is not copied to the CPU.
        slots = (self.pointer + torch.arange(count - kept, count, device=self.ids.device)) % size
        self._before = (slots, self.visual[slots], self.text[slots], self.ids[slots], self.pointer.clone())
        for buffer, rows in ((self.visual, visual), (self.text, text), (self.ids, ids)):
            buffer.index_copy_(0, slots, rows[count - kept :].detach().to(buffer))
        self.pointer.copy_((self.pointer + count) % size)

    def confirm(self) -> None:
        """What was enqueued stays: `undo` does nothing until more is enqueued."""
        self._before = ()

    @torch.no_grad()
    def undo(self) -> None:
        """Restore what the last `enqueue` has overwritten."""
        if self._before:
            slots, visual, text, ids, pointer = self._before
            for buffer, rows in ((self.visual, visual), (self.text, text), (self.ids, ids)):
                buffer.index_copy_(0, slots, rows)
            self.pointer.copy_(pointer)
            self.confirm()


def ramped_alpha(alpha: float, epoch: int, batch: int, batches: int) -> float:
    """The weight of the soft targets, which rises linearly from 0 to alpha over the first epoch.

    Args:
        alpha: the weight after the first epoch.
        epoch: index of the epoch, from 0.
        batch: index of the batch in the epoch, from 0.
        batches: number of batches in an epoch.
    """
    return alpha * min(1.0, (epoch * batches + batch) / max(batches, 1))


def hard_targets(ids: Tensor, gallery_ids: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Target probabilities: each row's is divided evenly among the gallery columns with its id.

    Args:
        ids: [B] int64, each in the gallery at least once.
        gallery_ids: [C] int64; columns with the id `EMPTY` get 0.
        dtype: of the result.

    Returns:
        [B, C], rows sum to 1.
    """
    positive = (ids[:, None] == gallery_ids[None]) & (gallery_ids[None] != EMPTY)
    return positive.to(dtype) / positive.sum(dim=1, keepdim=True)


@torch.no_grad()
def soft_targets(momentum: Tensor, gallery: Tensor, hard: Tensor, temperature: Tensor | float, alpha: float) -> Tensor:
    """Soft targets: alpha * (the momentum encoder's probabilities) + (1 - alpha) * hard.

    Args:
        momentum: [B, e] momentum features of the rows.
        gallery: [C, e] momentum features of the other modality.
        hard: [B, C] from `hard_targets`.
        temperature: of the softmax.
        alpha: in [0, 1].

    Returns:
        [B, C], rows sum to 1, without gradient.
    """
    if alpha == 0:
        return hard
    return alpha * torch.softmax(momentum @ gallery.T / temperature, dim=1) + (1 - alpha) * hard


def contrastive_loss(
    visual: Tensor,
    text: Tensor,
    momentum_visual: Tensor,
    momentum_text: Tensor,
    queue: FeatureQueue,
    ids: Tensor,
    temperature: Tensor | float,
    alpha: float,
    gallery_ids: Tensor | None = None,
    first_row: int = 0,
) -> Tensor:
    """Mean of visual-to-text and text-to-visual cross-entropy against momentum features and queue.

    Computed in float32 (or float64) under autocast too: a small temperature magnifies rounding errors of the
    similarities. The queue is only read; enqueue afterwards.

    Args:
        visual: [B, e] features of this process from the trained encoder, unit rows.
        text: [B, e] unit rows; pair i is (visual i, text i).
        momentum_visual: [G, e] features of the whole batch from the momentum encoder; without one, those of the trained
            encoder, with their gradient.
        momentum_text: [G, e].
        queue: earlier momentum features; one of size 0 for none.
        ids: [B] int64; rows and columns of one id are positives.
        temperature: of the softmax, a number or a scalar tensor that may learn.
        alpha: weight of the soft targets, see `ramped_alpha`; 0 without a momentum encoder.
        gallery_ids: [G] int64, ids of the momentum features; None if these are this process's batch.
        first_row: index of this process's first row among the momentum features.

    Returns:
        A scalar: the mean over this process's rows; 0, connected to the graph, if it has none.

    Raises:
        ValueError: alpha is positive without momentum features, or `gallery_ids` does not contain `ids` at `first_row`.
    """
    own = slice(first_row, first_row + ids.shape[0])
    if gallery_ids is None:
        gallery_ids = ids
    _check_gallery(momentum_visual, momentum_text, ids, gallery_ids, first_row)
    if alpha and (momentum_visual.requires_grad or momentum_text.requires_grad):
        raise ValueError(f"contrastive loss: alpha is {alpha} without a momentum encoder: use alpha 0")
    if ids.shape[0] == 0:  # gathered features must pass gradients to other processes
        return (visual.sum() + text.sum() + momentum_visual.sum() + momentum_text.sum()) * 0
    with torch.autocast(device_type=visual.device.type, enabled=False):
        columns = torch.cat([gallery_ids, queue.ids.to(gallery_ids.device)])
        momentum_visual, momentum_text = _full(momentum_visual), _full(momentum_text)
        hard = hard_targets(ids, columns, momentum_visual.dtype)
        visual_gallery = torch.cat([momentum_visual, queue.visual.to(momentum_visual)])
        text_gallery = torch.cat([momentum_text, queue.text.to(momentum_text)])
        visual_targets = soft_targets(momentum_visual[own], text_gallery, hard, temperature, alpha)
        text_targets = soft_targets(momentum_text[own], visual_gallery, hard, temperature, alpha)
        to_text = F.cross_entropy(_full(visual) @ text_gallery.T / temperature, visual_targets)
        to_visual = F.cross_entropy(_full(text) @ visual_gallery.T / temperature, text_targets)
        return (to_text + to_visual) / 2


def _check_gallery(
    momentum_visual: Tensor, momentum_text: Tensor, ids: Tensor, gallery_ids: Tensor, first_row: int
) -> None:
    """Raise `ValueError` if gallery and ids do not fit together."""
    if momentum_visual.shape[0] != gallery_ids.shape[0] or momentum_text.shape[0] != gallery_ids.shape[0]:
        raise ValueError(
            f"contrastive loss got {momentum_visual.shape[0]} visual and {momentum_text.shape[0]} text "
            f"momentum features for {gallery_ids.shape[0]} ids: pass gallery_ids with one id for each"
        )
    if gallery_ids is not ids and not torch.equal(gallery_ids[first_row : first_row + ids.shape[0]], ids):
        raise ValueError(f"contrastive loss: gallery_ids from row {first_row} on are not the batch's own ids")


def _full(tensor: Tensor) -> Tensor:
    """At least float32."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()
