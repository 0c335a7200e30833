"""What whole evaluations cost at the measured rates, as a table for docs/scaling.md.

    python benchmarks/costs.py

Rates come from results/rerank.json (seconds a pair, float32, of all pairs: there a visual meets 320 or 64 texts, in
these galleries at least as many) and results/overhead.json (seconds to encode). Galleries are those of the benchmarks;
pairs are an upper bound for ours, as if no pair were wanted by both directions. Writes benchmarks/results/costs.json
and prints the table.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import Any

from base_size import RESULTS
from overhead import VISUALS


@dataclass(frozen=True)
class Gallery:
    """A benchmark's test split.

    Args:
        visuals: how many.
        texts: how many.
        k: candidates a query that are reranked.
        work: the rows of the results that hold its rates.
        tokens: of a visual.
    """

    visuals: int
    texts: int
    k: int
    work: str
    tokens: int

    @property
    def pairs(self) -> int:
        """Wanted by both directions."""
        return self.texts * min(self.k, self.visuals) + self.visuals * min(self.k, self.texts)


GALLERIES = {
    "Flickr30K, k = 128": Gallery(1000, 5000, 128, "image", 577),
    "COCO 5k, k = 256": Gallery(5000, 25010, 256, "image", 577),
    "MSR-VTT 1k-A, k = 128": Gallery(1000, 1000, 128, "video", 8 * 197),
    "MSR-VTT 1k-A, all pairs": Gallery(1000, 1000, 1000, "video", 8 * 197),
}


def rate(rows: list[dict[str, Any]], work: str, peer: str) -> dict[str, Any]:
    """The row of a work's pairs in float32."""
    wanted = {"peer": peer, "dtype": "float32", "candidates": "all"}
    return next(r for r in rows if r["work"].startswith(work) and wanted.items() <= r.items())


def main() -> None:
    """Compute, write, print."""
    reranked = json.loads((RESULTS / "rerank.json").read_text())
    encoded = {
        row["work"].split()[0]: row["seconds"] / (VISUALS if row["work"].startswith("image") else 1)
        for row in json.loads((RESULTS / "overhead.json").read_text())
        if "encode_visual" in row["work"] and row["dtype"] == "float32"
    }
    rows = []
    for name, gallery in GALLERIES.items():
        ours, strong = rate(reranked, gallery.work, "usual"), rate(reranked, gallery.work, "strong")
        both = gallery.k >= min(gallery.visuals, gallery.texts)
        pairs = gallery.visuals * gallery.texts if both else gallery.pairs
        rows.append({
            "gallery": name, "pairs": pairs, "usual_pairs": gallery.pairs,
            "encode_hours": gallery.visuals * encoded[gallery.work] / 3600,
            "rerank_hours": pairs * ours["seconds_a_pair"] / 3600,
            "usual_hours": gallery.pairs * ours["peer_seconds_a_pair"] / 3600,
            "strong_hours": gallery.pairs * strong["peer_seconds_a_pair"] / 3600,
            "tokens_gigabytes": gallery.visuals * gallery.tokens * 768 * 4 / 1e9,
        })  # fmt: skip
    per_pair = {work: rate(reranked, work, "usual")["seconds_a_pair"] for work in ("image", "video")}
    out = {"seconds_a_pair": per_pair, "seconds_to_encode": encoded, "rows": rows}
    (RESULTS / "costs.json").write_text(json.dumps(out, indent=2) + "\n")
    write = sys.stdout.write
    write("| | pairs | encoding | reranking | usual way | strong peer | tokens, float32 |\n")
    write("|:--|--:|--:|--:|--:|--:|--:|\n")
    for row in rows:
        write(
            f"| {row['gallery']} | {row['pairs'] / 1e6:.2f} M | {row['encode_hours']:.2f} h | "
            f"{row['rerank_hours']:.1f} h | {row['usual_hours']:.0f} h | {row['strong_hours']:.0f} h | "
            f"{row['tokens_gigabytes']:.1f} GB |\n"
        )


if __name__ == "__main__":
    main()
