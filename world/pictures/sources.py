"""The packages that pictures and words come from, pinned; which style is kept for what; how they are fetched."""

from __future__ import annotations

import json
import logging
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

LOG = logging.getLogger(__name__)
CACHE = Path(__file__).resolve().parents[2] / ".cache" / "world"


@dataclass(frozen=True)
class Package:
    """One npm package: `role` says what is taken from it, `shipped` whether any of that is in `assets/`.

    `author` and `home` are of the drawings, where the package names them.
    """

    name: str
    version: str
    licence: str
    role: str
    shipped: bool = False
    author: str = ""
    home: str = ""

    @property
    def folder(self) -> str:
        """Name of the folder it is unpacked into."""
        return f"{self.name.lstrip('@').replace('/', '-')}-{self.version}"


def _icons(style: str, version: str, licence: str, author: str, home: str, role: str = "pre-training") -> Package:
    return Package(f"@iconify-json/{style}", version, licence, role, False, author, f"github.com/{home}")


DRAWN: dict[str, Package] = {
    style: _icons(style, *rest)
    for style, *rest in [
        ("noto", "1.2.9", "Apache-2.0", "Google Inc", "googlefonts/noto-emoji"),
        ("noto-v1", "1.2.5", "Apache-2.0", "Google Inc", "googlefonts/noto-emoji"),
        ("twemoji", "1.2.5", "CC-BY-4.0", "Twitter", "jdecked/twemoji", "measuring the base"),
        ("openmoji", "1.2.29", "CC-BY-SA-4.0", "OpenMoji", "hfg-gmuend/openmoji"),
        ("emojione", "1.2.3", "CC-BY-4.0", "Emoji One", "EmojiTwo/emojitwo"),
        ("fxemoji", "1.2.2", "Apache-2.0", "Mozilla", "mozilla/fxemoji"),
        ("emojione-v1", "1.2.3", "CC-BY-SA-4.0", "Emoji One", "joypixels/emojione-legacy"),
        ("streamline-emojis", "1.2.4", "CC-BY-4.0", "Streamline", "webalys-hq/streamline-vectors"),
    ]
}
# The flat drawings of the 3-D style's own artists: in no pre-training, only compared with it.
FLAT = _icons("fluent-emoji-flat", "1.2.6", "MIT", "Microsoft Corporation", "microsoft/fluentui-emoji", "comparison")
NEW = "fluent-3d"  # the style of the tasks, never seen in pre-training
HELD_OUT = "twemoji"  # a drawn style that no pre-training step sees: what the base is measured on
PRETRAINED = tuple(style for style in DRAWN if style != HELD_OUT)
NEW_STYLE = Package("@lobehub/fluent-emoji-3d", "1.1.0", "MIT", "pictures of the scenes", True)
ANIMATED = [
    Package(f"@lobehub/fluent-emoji-anim-{i}", "1.0.0", "MIT", "animations of the clips", True) for i in (1, 2, 3, 4)
]
EMOJIBASE = Package("emojibase-data", "17.0.0", "MIT", "labels, shortcodes, groups", True)
CLDR = Package("cldr-annotations-full", "48.2.0", "Unicode-3.0", "names", True)
CLDR_DERIVED = Package("cldr-annotations-derived-full", "48.2.0", "Unicode-3.0", "names", True)
EMOJILIB = Package("emojilib", "4.0.3", "MIT", "names", True)
WORDS = (EMOJIBASE, CLDR, CLDR_DERIVED, EMOJILIB)
ALL = (*DRAWN.values(), NEW_STYLE, *WORDS)


def fetch(package: Package, cache: Path = CACHE / "pkg") -> Path:
    """Folder of the unpacked package, fetched with `npm pack` when it is not there yet.

    Raises:
        ValueError: the package declares another licence or author than noted here.
    """
    target = cache / package.folder
    if not (target / "package.json").exists():
        target.mkdir(parents=True, exist_ok=True)
        spec = f"{package.name}@{package.version}"
        LOG.info("fetching %s", spec)
        command = ["npm", "pack", spec, "--silent", "--pack-destination", str(cache)]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        with tarfile.open(cache / output.strip().splitlines()[-1]) as tar:
            for member in tar.getmembers():
                # npm archives hold one top folder ("package/"); drop it
                member.name = member.name.partition("/")[2] or member.name
                tar.extract(member, target, filter="data")
    declared = json.loads((target / "package.json").read_text()).get("license")
    author, info = package.author, target / "info.json"
    if info.exists():
        author = json.loads(info.read_text())["author"]["name"]
    if (declared, author) != (package.licence, package.author):
        raise ValueError(f"{package.name} {package.version}: {declared!r} by {author!r} is not what is noted: read it")
    return target
