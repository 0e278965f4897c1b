"""Labelled postal addresses: download, check, parse, map to tags, split.

The data are real: the training set of usaddress, https://github.com/datamade/usaddress (MIT licence).
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import random
import subprocess
import sys
import tarfile
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Address = list[tuple[str, str]]  # (token, label), in order

# The labels of usaddress, and the tag of each with `tags: eight`. None: no tag fits, and addresses with this label
# are left out; 1,308 of 1,513 remain.
EIGHT: dict[str, str | None] = {
    "AddressNumber": "StreetNumber",
    "AddressNumberPrefix": "StreetNumber",
    "AddressNumberSuffix": "StreetNumber",
    "StreetName": "StreetName",
    "StreetNamePreType": "StreetName",
    "StreetNamePreModifier": "StreetName",
    "StreetNamePostType": "StreetName",
    "StreetNamePostModifier": "StreetName",
    "StreetNamePreDirectional": "Orientation",
    "StreetNamePostDirectional": "Orientation",
    "OccupancyType": "Unit",
    "OccupancyIdentifier": "Unit",
    "SubaddressType": "Unit",
    "SubaddressIdentifier": "Unit",
    "PlaceName": "Municipality",
    "StateName": "Province",
    "ZipCode": "PostalCode",
    "ZipPlus4": "PostalCode",
    "USPSBoxType": "GeneralDelivery",
    "USPSBoxID": "GeneralDelivery",
    "USPSBoxGroupType": "GeneralDelivery",
    "USPSBoxGroupID": "GeneralDelivery",
    "BuildingName": None,
    "CornerOf": None,
    "CountryName": None,
    "IntersectionSeparator": None,
    "LandmarkName": None,
    "NotAddress": None,
    "Recipient": None,
}


class DataError(RuntimeError):
    """The data cannot be obtained, or are not the data that the config names."""


def load(dataset: Any) -> tuple[list[Address], list[str]]:
    """All addresses of a dataset config, in a fixed order, and the names of their tags."""
    addresses: list[Address] = []
    if source := dataset.sources.get("us"):
        addresses += parse(member(sdist(source), source.member))
    if source := dataset.sources.get("canadian"):
        from trainers.canadian import generate  # imported here because it needs Faker

        addresses += generate(source.addresses, source.locales, source.seed)
    if dataset.tags == "all":
        return addresses, list(EIGHT)
    if dataset.tags == "eight":
        return onto_eight(addresses), list(dict.fromkeys(filter(None, EIGHT.values())))
    raise ValueError(f"dataset.tags is {dataset.tags!r}: it can be 'all' or 'eight'")


def split(addresses: Sequence[Address], held_out: float, seed: int) -> tuple[list[Address], list[Address]]:
    """The training and the validation addresses."""
    shuffled = random.Random(seed).sample(addresses, len(addresses))
    cut = round(held_out * len(shuffled))
    return shuffled[cut:], shuffled[:cut]


def parse(xml: bytes) -> list[Address]:
    """One address for each `AddressString`. Its children are the tokens; their XML tags are the labels."""
    # Thirty tokens end in newlines, which the labelling tool added.
    return [[((token.text or "").strip(), token.tag) for token in address] for address in ET.fromstring(xml)]


def onto_eight(addresses: Sequence[Address]) -> list[Address]:
    """The addresses whose labels all have one of the eight tags, with these tags."""
    mapped = ([(token, EIGHT[label]) for token, label in address] for address in addresses)
    return [address for address in mapped if all(tag for _, tag in address)]  # type: ignore[misc]


# ---------------------------------------------------------------- the source distribution


def sdist(source: Any) -> Path:
    """The cached source distribution, downloaded if it is missing. Many trials may call this at once."""
    name = f"{source.package}-{source.version}.tar.gz"
    path = cache() / name
    if not path.exists():
        with locked(path.with_suffix(".lock")), tempfile.TemporaryDirectory(dir=path.parent) as folder:
            if not path.exists():  # no other trial has downloaded it in the meantime
                download(f"{source.package}=={source.version}", Path(folder))
                os.replace(checked(Path(folder) / name, source.sha256), path)  # atomic
    return checked(path, source.sha256)


def cache() -> Path:
    """The cache folder. It is outside the project, so that no copy of the code contains the data."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base) / "orchestrate-examples"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on `path` among the processes of this machine."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # released when the file is closed, also by a crash
        yield


def download(requirement: str, folder: Path) -> None:
    """Download a source distribution with pip, which knows the user's index, proxy and certificates."""
    package, _, version = requirement.partition("==")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--retries", "1", "--no-deps"]
    command += ["--no-binary", package, "--dest", str(folder), requirement]
    # pip builds the metadata of the package. With the installed setuptools this takes a second; otherwise pip creates
    # an environment for it, with more downloads.
    if importlib.util.find_spec("setuptools"):
        command.append("--no-build-isolation")
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        why = (done.stderr.strip() or "pip said nothing").splitlines()[-1]
        raise DataError(
            f"cannot download {requirement}: are you offline? pip says: {why}. The file is needed once, then kept in "
            f"{cache()}: go online and run again, or put the .tar.gz from "
            f"https://pypi.org/project/{package}/{version}/#files there. dataset=canadian needs no download."
        )


def checked(path: Path, sha256: str) -> Path:
    """`path`, if its content has the given SHA-256; else DataError."""
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != sha256:
        raise DataError(
            f"{path} is not the file that the config names: its sha256 is {found}, not {sha256}. "
            "Delete it so that it is downloaded again, or correct the sha256 in conf/dataset."
        )
    return path


def member(archive: Path, name: str) -> bytes:
    """The content of a file in a source distribution. `name` is relative to its top folder."""
    with tarfile.open(archive) as tar:
        file = tar.extractfile(f"{archive.name.removesuffix('.tar.gz')}/{name}")
        assert file is not None, f"{name} is not a plain file"
        return file.read()
