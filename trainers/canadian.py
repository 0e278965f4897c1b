"""Generates synthetic Canadian addresses with the labels of usaddress.

The form of an address is drawn here; Faker (`en_CA`, `fr_CA`) invents the names in it.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from typing import Any

from trainers.addresses import Address, DataError

PROVINCES = {  # English and French
    "AB": ("Alberta", "Alberta"),
    "BC": ("British Columbia", "Colombie-Britannique"),
    "MB": ("Manitoba", "Manitoba"),
    "NB": ("New Brunswick", "Nouveau-Brunswick"),
    "NL": ("Newfoundland and Labrador", "Terre-Neuve-et-Labrador"),
    "NS": ("Nova Scotia", "Nouvelle-Écosse"),
    "ON": ("Ontario", "Ontario"),
    "PE": ("Prince Edward Island", "Île-du-Prince-Édouard"),
    "QC": ("Quebec", "Québec"),
    "SK": ("Saskatchewan", "Saskatchewan"),
}
DIRECTIONS = {
    "en": ("North", "South", "East", "West", "N", "S", "E", "W"),
    "fr": ("Nord", "Sud", "Est", "Ouest", "O"),
}
UNITS = {"en": ("Unit", "Apt.", "Suite", "#"), "fr": ("app.", "appartement", "bureau", "suite")}
BOXES = {"en": ("PO Box", "P.O. Box"), "fr": ("C.P.", "case postale")}
DELIVERIES = {"en": "General Delivery", "fr": "Poste restante"}


def generate(count: int, locales: Sequence[str], seed: int) -> list[Address]:
    """`count` addresses, in each locale in turn. The same seed and version of Faker give the same addresses."""
    try:
        from faker import Faker
    except ImportError:
        raise DataError("the synthetic Canadian addresses need Faker: pip install Faker") from None
    draw = random.Random(seed)
    writers = []
    for number, locale in enumerate(locales):
        names = Faker(locale, providers=["faker.providers.address", "faker.providers.person"])
        names.seed_instance(seed + number)
        writers.append(Writer(locale[:2], names, draw))
    return [writers[i % len(writers)].address() for i in range(count)]


class Writer:
    """Writes addresses of one language."""

    def __init__(self, language: str, names: Any, draw: random.Random) -> None:
        self.language = language
        self.names = names
        self.draw = draw

    def address(self) -> Address:
        """A random address, in one of a few styles of writing."""
        parts = [self.box() if self.draw.random() < 0.15 else self.street()]
        parts += [label(self.city(), "PlaceName"), self.province()]
        address = join(parts, ", " if self.draw.random() < 0.7 else " ")
        styles: list[Callable[[str], str]] = [str, str, str.lower, str.upper]
        style = self.draw.choice(styles)
        return [(style(token), tag) for token, tag in address]

    def street(self) -> Address:
        """Number and street, sometimes with a direction and a unit."""
        parts = label(str(self.draw.randint(1, 9999)), "AddressNumber")
        name = label(self.names.last_name(), "StreetName")
        if self.language == "fr":
            parts += label(self.names.street_prefix(), "StreetNamePreType") + name
        else:
            parts += name + label(self.names.street_suffix(), "StreetNamePostType")
        if self.draw.random() < 0.3:
            parts += label(self.draw.choice(DIRECTIONS[self.language]), "StreetNamePostDirectional")
        if self.draw.random() < 0.3:
            parts += label(self.draw.choice(UNITS[self.language]), "OccupancyType")
            parts += label(str(self.draw.randint(1, 999)), "OccupancyIdentifier")
        return parts

    def box(self) -> Address:
        """A post-office box, or general delivery."""
        if self.draw.random() < 0.3:
            return label(DELIVERIES[self.language], "USPSBoxType")
        box = label(self.draw.choice(BOXES[self.language]), "USPSBoxType")
        return box + label(str(self.draw.randint(1, 9999)), "USPSBoxID")

    def city(self) -> str:
        """A name from Faker, without spaces at hyphens and apostrophes, which it leaves: "Lac- Olivier", "L' Anne"."""
        return re.sub(r" ?-+ ?", "-", self.names.city()).replace("' ", "'")

    def province(self) -> Address:
        """A province, short or in full, and one of its postal codes."""
        short = self.draw.choice(list(PROVINCES))
        name = PROVINCES[short][self.language == "fr"] if self.draw.random() < 0.3 else short
        return label(name, "StateName") + label(self.names.postcode_in_province(short), "ZipCode")


def label(text: str, tag: str) -> Address:
    """The tokens of a text, all with the same label."""
    return [(token, tag) for token in text.split()]


def join(parts: Sequence[Address], separator: str) -> Address:
    """Parts joined into one address. As in the real addresses, a comma belongs to the token before it."""
    mark = separator.strip()
    ended = [[*part[:-1], (part[-1][0] + mark, part[-1][1])] for part in parts[:-1]]
    return [pair for part in [*ended, parts[-1]] for pair in part]
