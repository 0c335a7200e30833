"""The packages the embedded data come from, pinned, and how they are fetched."""

from __future__ import annotations

import json
import logging
import subprocess
import tarfile
from dataclasses import asdict, dataclass
from pathlib import Path

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Package:
    """One npm package: ``role`` says what is taken from it, ``shipped`` whether pictures ship."""

    name: str
    version: str
    licence: str
    role: str
    shipped: bool = False

    @property
    def folder(self) -> str:
        """Name of the folder it is unpacked into."""
        return f"{self.name.lstrip('@').replace('/', '-')}-{self.version}"


DRAWN: dict[str, Package] = {
    style: Package(f"@iconify-json/{style}", version, licence, "pictures, pre-training only")
    for style, version, licence in [
        ("noto", "1.2.9", "Apache-2.0"),
        ("noto-v1", "1.2.5", "Apache-2.0"),
        ("twemoji", "1.2.5", "CC-BY-4.0"),
        ("openmoji", "1.2.29", "CC-BY-SA-4.0"),
        ("emojione", "1.2.3", "CC-BY-4.0"),
        ("fxemoji", "1.2.2", "Apache-2.0"),
    ]
}
NEW_STYLE = Package("@lobehub/fluent-emoji-3d", "1.1.0", "MIT", "pictures of the scenes", True)
EMOJIBASE = Package("emojibase-data", "17.0.0", "MIT", "labels, tags, shortcodes, groups", True)
CLDR = Package("cldr-annotations-full", "48.2.0", "Unicode-3.0", "names and keywords", True)
CLDR_DERIVED = Package("cldr-annotations-derived-full", "48.2.0", "Unicode-3.0", "names and keywords", True)
EMOJILIB = Package("emojilib", "4.0.3", "MIT", "keywords", True)
ANIMATED = [
    Package(f"@lobehub/fluent-emoji-anim-{i}", "1.0.0", "MIT", "animations of the clips", True) for i in (1, 2, 3, 4)
]
ALL: list[Package] = [*DRAWN.values(), NEW_STYLE, EMOJIBASE, CLDR, CLDR_DERIVED, EMOJILIB]


def fetch(package: Package, cache: Path) -> Path:
    """Folder of the unpacked package, fetched with ``npm pack`` when it is not there yet."""
    target = cache / package.folder
    if (target / "package.json").exists():
        return target
    target.mkdir(parents=True, exist_ok=True)
    spec = f"{package.name}@{package.version}"
    LOG.info("fetching %s", spec)
    command = ["npm", "pack", spec, "--silent", "--pack-destination", str(cache)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    archive = cache / output.strip().splitlines()[-1]
    with tarfile.open(archive) as tar:
        for member in tar.getmembers():
            # npm archives hold one top folder ("package/"); drop it
            member.name = member.name.partition("/")[2] or member.name
            tar.extract(member, target, filter="data")
    return target


def describe(package: Package, folder: Path) -> dict[str, object]:
    """What the data card says of a package: as declared by the package itself."""
    manifest = json.loads((folder / "package.json").read_text())
    licence_files = sorted(p.name for p in folder.iterdir() if p.name.upper().startswith("LICEN"))
    upstream: object = None
    info = folder / "info.json"
    if info.exists():
        details = json.loads(info.read_text())
        upstream = {"author": details.get("author"), "license": details.get("license")}
    if manifest.get("license") != package.licence:
        raise ValueError(f"{package.name}: licence {manifest.get('license')!r} is not the expected")
    return {
        **asdict(package),
        "homepage": manifest.get("homepage"),
        "licence_files": licence_files,
        "upstream": upstream,
    }
