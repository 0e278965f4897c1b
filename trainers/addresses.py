"""Labelled postal addresses: fetched once, checked, parsed, mapped onto tags, split.

Real data: the training set of usaddress, https://github.com/datamade/usaddress (MIT licence).
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

# The labels of usaddress, and the tag that each becomes with `tags: eight`. None: there is no such tag, and an
# address with this label is left out; 1,308 of the 1,513 remain.
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
    """The data cannot be had, or are not the data that the config names."""


def load(dataset: Any) -> tuple[list[Address], list[str]]:
    """All addresses of the sources in a dataset config, in a fixed order, and the names of their tags."""
    addresses: list[Address] = []
    if source := dataset.sources.get("us"):
        addresses += parse(member(sdist(source), source.member))
    if source := dataset.sources.get("canadian"):
        from trainers.canadian import generate  # only here: it needs Faker

        addresses += generate(source.addresses, source.locales, source.seed)
    if dataset.tags == "all":
        return addresses, list(EIGHT)
    if dataset.tags == "eight":
        return onto_eight(addresses), list(dict.fromkeys(filter(None, EIGHT.values())))
    raise ValueError(f"dataset.tags is {dataset.tags!r}: it can be 'all' or 'eight'")


def split(addresses: Sequence[Address], held_out: float, seed: int) -> tuple[list[Address], list[Address]]:
    """Training and validation addresses."""
    shuffled = random.Random(seed).sample(addresses, len(addresses))
    cut = round(held_out * len(shuffled))
    return shuffled[cut:], shuffled[:cut]


def parse(xml: bytes) -> list[Address]:
    """One address for each `AddressString`; its children are the tokens, their tags the labels."""
    # Thirty tokens end in newlines: a trace of the labelling tool, not a part of the address.
    return [[((token.text or "").strip(), token.tag) for token in address] for address in ET.fromstring(xml)]


def onto_eight(addresses: Sequence[Address]) -> list[Address]:
    """The addresses all of whose labels have one of the eight tags, with these."""
    mapped = ([(token, EIGHT[label]) for token, label in address] for address in addresses)
    return [address for address in mapped if all(tag for _, tag in address)]  # type: ignore[misc]


# ---------------------------------------------------------------- the source distribution


def sdist(source: Any) -> Path:
    """The cached source distribution; fetched first if missing. Safe when many trials start at once."""
    name = f"{source.package}-{source.version}.tar.gz"
    path = cache() / name
    if not path.exists():
        with locked(path.with_suffix(".lock")), tempfile.TemporaryDirectory(dir=path.parent) as folder:
            if not path.exists():  # no other trial has fetched it meanwhile
                download(f"{source.package}=={source.version}", Path(folder))
                os.replace(checked(Path(folder) / name, source.sha256), path)  # whole, or not at all
    return checked(path, source.sha256)


def cache() -> Path:
    """Outside the project: no trial's code or artifact holds the data."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base) / "orchestrate-examples"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on `path` among the processes of this machine."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # released when the file is closed, by a crash too
        yield


def download(requirement: str, folder: Path) -> None:
    """Let pip fetch a source distribution: it knows the user's index, proxy and certificates."""
    package, _, version = requirement.partition("==")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--retries", "1", "--no-deps"]
    command += ["--no-binary", package, "--dest", str(folder), requirement]
    # pip asks the package for its metadata. With the setuptools at hand that takes a second; otherwise pip
    # makes an environment for it, with more downloads.
    if importlib.util.find_spec("setuptools"):
        command.append("--no-build-isolation")
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        why = (done.stderr.strip() or "pip said nothing").splitlines()[-1]
        raise DataError(
            f"cannot fetch {requirement}: are you offline? pip says: {why}. The file is needed once, then kept in "
            f"{cache()}: go online and run again, or put the .tar.gz from "
            f"https://pypi.org/project/{package}/{version}/#files there. dataset=canadian needs no download."
        )


def checked(path: Path, sha256: str) -> Path:
    """`path`, if it holds what the config says."""
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != sha256:
        raise DataError(
            f"{path} is not the file that the config names: its sha256 is {found}, not {sha256}. "
            "Delete it to have it fetched again, or correct the sha256 in conf/dataset."
        )
    return path


def member(archive: Path, name: str) -> bytes:
    """A file of a source distribution; `name` is relative to its top folder."""
    with tarfile.open(archive) as tar:
        file = tar.extractfile(f"{archive.name.removesuffix('.tar.gz')}/{name}")
        assert file is not None, f"{name} is not a plain file"
        return file.read()
