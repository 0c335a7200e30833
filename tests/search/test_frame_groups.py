"""The most similar frame of each file, beside a loop over the files."""

from __future__ import annotations

import numpy as np

from uniadapter.search.frame_groups import FrameGroups
from uniadapter.search.store import FileRow, Frames


def test_each_file_has_its_most_similar_frame() -> None:
    rng = np.random.default_rng(0)
    digests = np.array([f"{number}" for number in rng.integers(0, 30, 100)], object)
    frames = Frames(digests, np.arange(100), np.zeros(100), rng.standard_normal((100, 8)).astype(np.float32))
    # Two files of each content, and two without frames.
    files = [FileRow(f"/{number}.png", str(number % 40), 1, 1, "picture") for number in range(80)]
    groups, vector = FrameGroups(frames, files), frames.vectors[7]
    found = groups.similar(vector)
    cosines = frames.vectors @ vector
    expected = np.full(80, -np.inf, np.float32)
    for place, row in enumerate(files):
        own = np.flatnonzero(digests == row.digest)
        assert groups.rows(place).tolist() == own.tolist()
        if len(own):
            expected[place] = cosines[own].max()
    assert np.array_equal(found.files, expected)
    admitted = np.arange(0, 80, 2)
    there = [place for place in admitted.tolist() if np.isfinite(expected[place])]
    assert found.first(admitted).tolist() == sorted(there, key=lambda place: -expected[place])


def test_an_index_without_frames() -> None:
    empty = Frames(np.array([], object), np.zeros(0, int), np.zeros(0), np.zeros((0, 8), np.float32))
    groups = FrameGroups(empty, [FileRow("/a.png", "a", 1, 1, "picture")])
    assert len(groups.similar(np.ones(8, np.float32)).first(np.arange(1))) == 0
    assert len(groups.rows(0)) == 0
