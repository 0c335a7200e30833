"""Listing of archives: what the standard library finds in them, and what is broken."""

from __future__ import annotations

import io
import random
import tarfile
from pathlib import Path

import pytest
from shard_files import caption_files, write_tar

from uniadapter.data.shards.tars import BLOCK, BrokenTar, Read, RecordFiles, list_members, list_records

LONG = "folder/" * 20 + "name.of.many.parts"


def reader(content: bytes) -> Read:
    return lambda offset, count: content[offset : offset + count]


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_are_those_of_the_standard_library(tmp_path: Path, form: int) -> None:
    draw = random.Random(form)
    names = [f"{n:04d}.{ending}" for n in range(20) for ending in ("jpg", "json", "seg.png")]
    names += ["./a.jpg", "b/c.txt", "odd \x01 näme\n.jpg", "..%2f.jpg", "../../out.jpg", "/etc/passwd.jpg"]
    names += [] if form == tarfile.USTAR_FORMAT else ["long/" * 60 + "a.jpg", "é" * 90 + ".jpg"]
    files = [(name, draw.randbytes(draw.choice([0, 1, 511, 512, 513, 3000]))) for name in names]
    more = {"mtime": 1234.5} if form == tarfile.PAX_FORMAT else {}  # as WebDataset's own writer has it
    content = write_tar(tmp_path / "a.tar", files, form, **more).read_bytes()
    found = list(list_members(reader(content), len(content)))
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        wanted = [(one.name, one.offset_data, one.size) for one in archive if one.isfile()]
    assert [(one.name, one.start, one.size) for one in found] == wanted
    assert [(one.name, content[one.start : one.start + one.size]) for one in found] == files
    assert [one.begin for one in found[1:]] == [one.end for one in found[:-1]]


def test_a_gnu_tar_of_the_old_kind_and_folders_between_files(tmp_path: Path) -> None:
    file = tmp_path / "a.tar"
    with tarfile.open(file, "w") as archive:
        folder = tarfile.TarInfo("deep")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name in ("deep/1.jpg", "deep/1.txt"):
            member = tarfile.TarInfo(name)
            member.size = 3
            archive.addfile(member, io.BytesIO(b"abc"))
            link = tarfile.TarInfo(f"{name}.link")
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
            archive.addfile(link)
    content = file.read_bytes()
    (record,) = list_records(reader(content), len(content))
    assert record.key == "deep/1"
    assert list(record.members) == ["jpg", "txt"]
    old = bytearray(content)
    for at in range(0, len(old), BLOCK):  # without the magic word, as in version 7
        if old[at + 257 : at + 262] == b"ustar":
            removed = sum(old[at + 257 : at + 265])
            old[at + 257 : at + 265] = bytes(8)
            total = int(bytes(old[at + 148 : at + 154]), 8) - removed
            old[at + 148 : at + 156] = b"%06o\0 " % total
    assert [one.key for one in list_records(reader(bytes(old)), len(old))] == ["deep/1"]


def test_records_are_adjacent_files_of_one_name(tmp_path: Path) -> None:
    files = [
        ("a.jpg", b"1"),
        ("a.txt", b"2"),
        (".hidden", b"3"),
        ("b.SEG.PNG", b"4"),
        ("b.jpg", b"5"),
        ("a.json", b"6"),
    ]
    content = write_tar(tmp_path / "a.tar", files).read_bytes()
    found = list(list_records(reader(content), len(content)))
    assert [(one.key, list(one.members)) for one in found] == [
        ("a", ["jpg", "txt"]), ("b", ["seg.png", "jpg"]), ("a", ["json"]),
    ]  # fmt: skip
    assert [one.repeated for one in found] == ["", "", ""]
    twice = write_tar(tmp_path / "b.tar", [("a.jpg", b"1"), ("a.jpg", b"2")]).read_bytes()
    assert [one.repeated for one in list_records(reader(twice), len(twice))] == ["jpg"]


def test_an_archive_that_is_cut_anywhere_says_so_and_gives_whole_records_only(tmp_path: Path) -> None:
    content = write_tar(tmp_path / "a.tar", caption_files(range(4))).read_bytes()
    with tarfile.open(tmp_path / "a.tar") as archive:
        last = max(one.offset_data for one in archive)
    whole = [one.key for one in list_records(reader(content), len(content))]
    assert len(whole) == 4
    for end in range(0, last + BLOCK, 97):
        found = list[RecordFiles]()
        with pytest.raises(BrokenTar, match=r"cut|empty|not a tar"):
            found.extend(list_records(reader(content[:end]), end))
        assert all(set(one.members) == {"png", "json"} and one.end <= end for one in found)
        assert [one.key for one in found] == whole[: len(found)]
        assert len(found) < 4


@pytest.mark.parametrize("seed", range(40))
def test_random_bytes_and_damage_are_errors_of_one_kind(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    content = bytearray(write_tar(tmp_path / "a.tar", caption_files(range(3))).read_bytes())
    for _ in range(draw.choice([1, 5, 200])):
        content[draw.randrange(len(content))] = draw.randrange(256)
    try:
        for one in list_members(reader(bytes(content)), len(content)):
            assert one.start + one.size <= len(content)
            assert one.parts[0] == "" or one.name
    except BrokenTar:
        pass
    with pytest.raises(BrokenTar):
        list(list_members(reader(draw.randbytes(4096)), 4096))
