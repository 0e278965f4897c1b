"""Reads `sweep.axes` from the sweep file into a `Space`. Pure: a `Vocabulary` answers what only Hydra knows."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from orchestrator.errors import ConfigError, nearest
from orchestrator.language.config_errors import MayNeedCode
from orchestrator.language.option_names import option_name
from orchestrator.search.space import Axis, Block, Interval, Key, Setting, Space

_FUNCTION = re.compile(r"\s*(range|choice|glob|interval|tag|sort|shuffle|int|float|str|bool)\(")


class Vocabulary(Protocol):
    """What the reader of axes asks about the config folders and Hydra's grammar."""

    def is_group(self, path: str) -> bool:
        """Whether a config group with this path exists."""

    def options(self, group: str) -> Sequence[str]:
        """The options of a group."""

    def options_below(self, group: str) -> Sequence[str]:
        """The options of the groups below a group: `folder/option`."""

    def groups(self) -> Sequence[str]:
        """The groups at the root."""

    def values(self, text: str, group: str | None) -> tuple[Sequence[Any] | Interval, bool]:
        """The values of a string in the sweep grammar, and whether the string is a sweep or one plain value."""

    def package(self, chosen: Sequence[Setting], group: str) -> str:
        """The package of the chosen option: the dotted key of the config under which it is placed."""

    def nested(self, chosen: Sequence[Setting], path: str) -> str:
        """The override key of a group below the chosen option (`db/engine`, or `db/engine@db.engine2`)."""


@dataclass(frozen=True)
class Replacement:
    """An axis given on the command line: it replaces every axis over the same key."""

    key: str  # without sigil
    sigil: str
    rows: Sequence[Any] | Interval
    varies: bool


@dataclass(frozen=True)
class Scope:
    """The context in which relative keys are read: an option of a group, or a prefix of dotted keys."""

    group: str | None = ""  # path of the group; None: keys here cannot name groups
    package: str = ""
    chosen: tuple[Setting, ...] = ()
    where: str = "sweep.axes"
    varies: bool = False  # whether scalars count as varying too, since not every trial has them


@dataclass
class AxisReader:
    """Reads blocks of axes, and records which replacements from the command line were used."""

    vocabulary: Vocabulary
    file: str
    replacements: Mapping[str, Replacement] = field(default_factory=dict)
    # Replacements that were used, by the place of the axis that they replaced: at the root, or under an option.
    at_root: set[str] = field(default_factory=set)
    scoped: set[str] = field(default_factory=set)
    warnings: list[str] = field(default_factory=list)

    def read(self, written: Any, place: str = "sweep.axes") -> Space:
        """The space of `sweep.axes`, or what is written in another place, with the axes from the command line."""
        if not written:
            written = {}
        blocks = written if isinstance(written, list) else [written]
        several = len(blocks) > 1
        read = []
        for index, block in enumerate(blocks):
            where = f"{place}[{index}]" if isinstance(written, list) else place
            read.append(self._root_block(block, Scope(where=where, varies=several), several))
        return Space(tuple(read))

    def _root_block(self, block: Any, scope: Scope, several: bool) -> Block:
        """One block at the root. Swept keys of the command line that replaced none of its axes are added."""
        before, self.at_root = self.at_root, set()
        scoped = set(self.scoped)
        axes = self._block(block, scope)
        here, inside = self.at_root, self.scoped - scoped
        self.at_root = before | here
        for name, new in self.replacements.items():
            if name in here or name in inside:
                continue
            if new.varies or several:
                axes += (self._replaced(self._key(new.sigil + new.key, scope), new),)
                self.at_root.add(name)
        return axes

    def _error(self, what: str, where: str, fix: str | None = None) -> ConfigError:
        return ConfigError(what, where=f"{self.file}: {where}", fix=fix)

    # ------------------------------------------------------------ mappings

    def _block(self, block: Any, scope: Scope) -> Block:
        if not isinstance(block, Mapping):
            raise self._error(
                f"axes are a mapping of keys to values, not {_type_name(block)}",
                scope.where,
                "write key: [value, value]",
            )
        axes: Block = ()
        for written, value in block.items():
            axes += self._axis(self._key_text(written, value, scope), value, scope)
        return axes

    def _key_text(self, written: Any, value: Any, scope: Scope) -> str:
        if isinstance(written, bool):
            raise self._error(
                f"YAML reads an unquoted no, off, on or yes as a boolean: a key was read as {written}",
                scope.where,
                'quote the name: "no"',
            )
        text = str(written)
        self._check_split(text if written is not None else "", scope.where)
        if isinstance(value, str):
            self._check_split(value, f"{scope.where}.{text}")
        if not text.strip() or text.startswith("~"):
            raise self._error(
                f"{text!r} is not a key that can be swept", scope.where, "write the dotted key, or the group"
            )
        return text

    def _axis(self, text: str, value: Any, scope: Scope) -> tuple[Axis, ...]:
        if "," in text:
            return self._linked([part.strip() for part in text.split(",")], value, scope)
        key = self._key(text, scope)
        where = f"{scope.where}.{text}"
        if key.group and isinstance(value, Mapping):
            return (self._options(key, value, scope, where),)
        if isinstance(value, Mapping):
            if not value:
                raise self._error("an empty axis", where, "give it values or remove it")
            return self._block(value, replace(scope, group=None, package=key.sigil + key.name, where=where))
        rows, swept = self._rows(value, key, where)
        key = replace(key, varies=swept or scope.varies)
        return (self._final_axis(key, rows, scope, (), where),)

    def _final_axis(
        self, key: Key, rows: Sequence[Any] | Interval, scope: Scope, bodies: tuple[Block, ...], where: str
    ) -> Axis:
        """The axis itself, or the one from the command line that replaces it."""
        new = self.replacements.get(key.name)
        if new is not None:
            (self.scoped if scope.chosen else self.at_root).add(key.name)
            return self._replaced(key, new, rows, bodies)
        if not isinstance(rows, Interval) and not len(rows):
            raise self._error("an empty axis", where, "give it values or remove it")
        return Axis((key,), rows, bodies)

    def _replaced(
        self, key: Key, new: Replacement, old: Sequence[Any] | Interval = (), bodies: tuple[Block, ...] = ()
    ) -> Axis:
        key = replace(key, varies=new.varies)
        where = f"override {new.sigil}{new.key}"
        rows = new.rows
        if isinstance(rows, Interval):
            return Axis((key,), rows)
        if key.group:
            rows = tuple(self._option(key, row, where) for row in rows)
            if bodies and not isinstance(old, Interval):
                by_option = dict(zip(old, bodies, strict=True))
                bodies = tuple(by_option.get(row, ()) for row in rows)
        if not len(rows):
            raise self._error("an empty axis", where, "give it a value, or leave the override out")
        return Axis((key,), rows, bodies if any(bodies) else ())

    # ------------------------------------------------------------ keys

    def _key(self, text: str, scope: Scope) -> Key:
        bare = text.lstrip("+")
        sigil = text[: len(text) - len(bare)]
        where = f"{scope.where}.{text}"
        if len(sigil) > 2 or not bare.strip("/"):
            raise self._error(f"{text!r} is not a key", where, "write key, +key or ++key")
        if bare.startswith("/"):
            bare, scope = bare[1:], Scope(where=scope.where)
        group = self._group(bare, scope)
        if group is not None:
            return Key(group, group=True, sigil=sigil[:1], where=where)
        if "/" in bare or "@" in bare:
            raise self._unknown_group(bare, where)
        inherited = scope.package.lstrip("+")
        sigil = sigil or scope.package[: len(scope.package) - len(inherited)]
        return Key(f"{inherited}.{bare}" if inherited else bare, sigil=sigil, where=where)

    def _group(self, bare: str, scope: Scope) -> str | None:
        """The override key of the group that a key names; None if it names no group."""
        if scope.group is None:
            return None
        path, at_sign, package = bare.partition("@")
        full = f"{scope.group}/{path}" if scope.group else path
        if not self.vocabulary.is_group(full):
            return None
        if scope.group and not at_sign:
            return self.vocabulary.nested(scope.chosen, full)
        return f"{full}{at_sign}{package}"

    def _unknown_group(self, bare: str, where: str) -> ConfigError:
        path = bare.partition("@")[0]
        close = nearest(path, self.vocabulary.groups())
        parent, _, last = path.rpartition("/")
        if parent and self.vocabulary.is_group(parent):
            found = nearest(last, self.vocabulary.options(parent))
            close = f"{parent}/{found}" if found else close
        fix = f"did you mean {close!r}?" if close else f"groups: {', '.join(self.vocabulary.groups())}"
        return MayNeedCode(f"there is no config group {path!r}", where=f"{self.file}: {where}", fix=fix)

    # ------------------------------------------------------------ groups

    def _options(self, key: Key, value: Mapping[Any, Any], scope: Scope, where: str) -> Axis:
        """An axis over a group, written as a mapping: each option may bring axes of its own."""
        if not value:
            raise self._error("an empty axis", where, "give it options or remove it")
        rows: list[Any] = []
        bodies: list[Block] = []
        new = self.replacements.get(key.name)
        for written, body in value.items():
            option = self._option(key, written, where)
            rows.append(option)
            if new and (isinstance(new.rows, Interval) or option not in new.rows):
                bodies.append(())
                continue
            bodies.append(self._body(key, option, body, scope, f"{where}.{option}"))
        key = replace(key, varies=True)
        return self._final_axis(key, tuple(rows), scope, tuple(bodies) if any(bodies) else (), where)

    def _body(self, key: Key, option: Any, body: Any, scope: Scope, where: str) -> Block:
        if body is None or body == {}:
            return ()
        if option is None:
            raise self._error("null leaves the group out, so it cannot have axes of its own", where, "write null: {}")
        chosen = (*scope.chosen, (key, option))
        package = self.vocabulary.package(chosen, key.name)
        inner = Scope(key.name.partition("@")[0], package, chosen, where, varies=True)
        return self._block(body, inner)

    def _option(self, key: Key, option: Any, where: str) -> Any:
        """An option's name, checked. null and lists of names are allowed, as in Hydra."""
        if option is None:
            return None
        if isinstance(option, list):
            if any(item is None or isinstance(item, list) for item in option):
                raise self._error(
                    f"a list of options contains only names, not {option!r}", where, "write one name or a flat list"
                )
            return [self._option(key, item, where) for item in option]
        name = str(option_name(option, f"{self.file}: {where}"))
        self._check_split(name, where)
        group = key.name.partition("@")[0]
        options = self.vocabulary.options(group)
        if name in options or "${" in name or self._nested_option(group, name):
            return name
        known = [*options, *self.vocabulary.options_below(group)]
        close = nearest(name, known)
        guess = f"did you mean {close!r}? " if close else ""
        fix = f"{guess}its options: {', '.join(known)}" if known else f"its folder {group}/ has no .yaml file"
        raise MayNeedCode(f"group {group!r} has no option {option!r}", where=f"{self.file}: {where}", fix=fix)

    def _nested_option(self, group: str, option: str) -> bool:
        """Whether an option such as `nested/mysql` names a config in a folder below the group."""
        folder, _, name = option.rpartition("/")
        return bool(folder) and name in self.vocabulary.options(f"{group}/{folder}")

    # ------------------------------------------------------------ values

    def _rows(self, value: Any, key: Key, where: str) -> tuple[Sequence[Any] | Interval, bool]:
        """The values of an axis, and whether it was written as alternatives rather than as one scalar."""
        swept = isinstance(value, list)
        rows: Sequence[Any] | Interval = value if isinstance(value, list) else [value]
        if isinstance(value, str):
            rows, swept = self._parsed(value, key, where)
        if isinstance(rows, Interval):
            if key.group:
                raise self._error("a group needs options, not an interval", where, "list the names of its options")
            return rows, swept
        for row in rows if isinstance(value, list) else ():
            self._check_split(row, where)
            if isinstance(row, str) and re.fullmatch(_FUNCTION.pattern + r".*\)\s*", row):
                self.warnings.append(f"{where}: {row!r} is in a list, so it is taken literally and not evaluated")
        if key.group:
            rows = tuple(row if isinstance(row, Mapping) else self._option(key, row, where) for row in rows)
            if any(isinstance(row, Mapping) for row in rows):
                raise self._error(
                    "an option in a list cannot have axes of its own",
                    where,
                    "write a mapping of options to their axes",
                )
        return rows, swept

    def _parsed(self, text: str, key: Key, where: str) -> tuple[Sequence[Any] | Interval, bool]:
        group = key.name.partition("@")[0] if key.group else None
        try:
            rows, swept = self.vocabulary.values(text, group)
        except ConfigError as error:
            raise self._error(
                f"{text!r} is not in Hydra's sweep grammar: {error.what}",
                where,
                "to use it literally, write it in a list: [...]",
            ) from error
        if isinstance(rows, Interval):
            self._check_interval(rows, where)
        return rows, swept

    def _check_interval(self, rows: Interval, where: str) -> None:
        if not rows.start < rows.end:
            raise self._error("an empty axis: the interval must end above its start", where, "exchange them")
        if rows.log and rows.start <= 0:
            raise self._error("a logarithmic interval must start above 0", where, "raise its start")

    def _check_split(self, text: Any, where: str) -> None:
        """Refuse a part of an unquoted call: YAML splits `[range(0, 3)]` at the comma."""
        if not isinstance(text, str):
            return
        opened, closed = text.count("("), text.count(")")
        if (_FUNCTION.match(text) and opened > closed) or (closed > opened and re.fullmatch(r"[^()\[\]'\"]*\)+", text)):
            raise self._error(
                f"YAML split an unquoted call at its comma: {text!r} is a part",
                where,
                'quote it, and leave out the list: key: "range(0, 3)"',
            )

    def _linked(self, names: list[str], value: Any, scope: Scope) -> tuple[Axis, ...]:
        """An axis over several keys that change together, written as rows, as in `pytest.mark.parametrize`."""
        where = f"{scope.where}.{', '.join(names)}"
        keys = tuple(replace(self._key(name, scope), varies=True) for name in names if name)
        if not isinstance(value, list) or not value:
            what = "an empty axis" if value in (None, []) else "linked keys need a list of rows"
            raise self._error(what, where, "write rows: [[1, 2], [3, 4]]")
        for row in value:
            if not isinstance(row, list) or len(row) != len(names) or len(keys) != len(names):
                length = len(row) if isinstance(row, list) else "no"
                raise self._error(
                    f"each row of linked keys needs {len(names)} values, but {row!r} has {length}",
                    where,
                    "write one value for each key",
                )
        if len({key.name for key in keys}) != len(keys):
            raise self._error("a key is linked with itself", where, "name each key once")
        return self._linked_axes(keys, value, scope, where)

    def _linked_axes(self, keys: tuple[Key, ...], rows: list[Any], scope: Scope, where: str) -> tuple[Axis, ...]:
        """A linked axis. A key that the command line replaces leaves it and becomes an axis of its own."""
        checked = [
            tuple(self._option(k, v, where) if k.group else v for k, v in zip(keys, row, strict=True)) for row in rows
        ]
        kept = [i for i, key in enumerate(keys) if key.name not in self.replacements]
        replaced = tuple(self._final_axis(key, (), scope, (), where) for key in keys if key.name in self.replacements)
        if not kept:
            return replaced
        left: list[Any] = [tuple(row[i] for i in kept) for row in checked]
        if replaced:
            left = [row for i, row in enumerate(left) if row not in left[:i]]
        if len(kept) == 1:
            left = [row[0] for row in left]
        return (Axis(tuple(keys[i] for i in kept), left), *replaced)


def _type_name(value: Any) -> str:
    return {list: "a list", type(None): "null"}.get(type(value), type(value).__name__)
