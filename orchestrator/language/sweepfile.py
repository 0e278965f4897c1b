"""Reads the `sweep` section: plain data in, a checked `SweepSpec` out. Pure.

`retries: 2` means two more attempts after an error, and after a loss or an out-of-memory failure two or the default,
whichever is more.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from orchestrator import naming
from orchestrator.errors import ConfigError, nearest
from orchestrator.language import wandb_sweep
from orchestrator.language.quantities import amount, amounts, gpus, labels, seconds, size
from orchestrator.model.sweep import CodeRules, Objective, Resources, Retries, Search, SweepSpec

T = TypeVar("T")

LATER = {
    "early_stop": "ending weak trials early",
    "checkpoint": "settings of checkpoints",
    "interpreter": "a trainer with an interpreter of its own",
    "script": "unmodified scripts as trainers",
    "pipeline": "stages that depend on each other",
}
METHODS_LATER = {"bayes", "tpe", "hyperband", "asha", "pbt"}


class Section:
    """A mapping and its place in the file. Its keys are read one by one; error messages name the key."""

    def __init__(self, data: Any, where: str, known: Mapping[str, Any]) -> None:
        self.where = where
        if not isinstance(data, Mapping):
            raise self.wrong("", f"expected a mapping of {', '.join(known)}, not {_written(data)}")
        self._data = data
        for key in data:
            if key not in known:
                self._unknown(str(key), known)
            if data[key] == "???" and isinstance(data[key], str):
                raise self.wrong(
                    str(key), "is mandatory (???) but has no value", f"set {where.split(': ')[-1]}.{key}=…"
                )

    def _unknown(self, key: str, known: Mapping[str, Any]) -> None:
        close = nearest(key, known)
        fix = f"did you mean {close!r}?" if close else f"known keys: {', '.join(known)}"
        if key in LATER:
            raise self.wrong(key, f"not supported yet ({LATER[key]})", "remove it")
        raise self.wrong(key, "unknown key", fix)

    def wrong(self, key: str, what: str, fix: str | None = None) -> ConfigError:
        """The error for a wrong value of a key."""
        return ConfigError(what, where=f"{self.where}.{key}" if key else self.where, fix=fix)

    def take(self, key: str, read: Callable[[Any], T], default: T) -> T:
        """A value, checked by `read`. `read` raises ValueError with a text that says what it expects."""
        if key not in self._data or self._data[key] is None:
            return default
        value = self._data[key]
        try:
            return read(value)
        except ValueError as error:
            raise self.wrong(key, f"expected {error}, not {_written(value)}") from None

    def given(self, key: str) -> Any:
        """A value as it is written in the file."""
        return self._data.get(key)

    def inner(self, key: str) -> str:
        """The place of a key, for the section that is its value."""
        return f"{self.where}.{key}"


def _written(value: Any) -> str:
    """A wrong value, as it stands in the file."""
    return naming.value(value) if value is None or isinstance(value, bool) else repr(value)


# ---------------------------------------------------------------- kinds of values


def _string(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("a text")
    if "${" in value:
        raise ValueError("a plain text (only `axes`, `resources` and `steps` may hold ${...})")
    return value


def _one_of(*names: str) -> Callable[[Any], Any]:
    def read(value: Any) -> str:
        value = {False: "off", True: "on"}.get(value, value) if isinstance(value, bool) else value
        if value not in names or not isinstance(value, str):
            raise ValueError(f"one of {', '.join(names)}")
        return value

    return read


def _count(least: int) -> Callable[[Any], int]:
    def read(value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ValueError(f"a whole number of at least {least}")
        return value

    return read


def _steps(value: Any) -> int | str | None:
    if isinstance(value, str) and re.fullmatch(r"\$\{\s*[^\s${}:.][^\s${}:]*\s*\}", value):
        return value
    try:
        return _count(1)(value)
    except ValueError:
        raise ValueError("a whole number above 0, or the key that holds it: ${training.epochs}") from None


def _limit(value: Any) -> float:
    limit = seconds(value)
    if not limit:
        raise ValueError("a duration above 0, such as 90s, 5m or 2h (null: no limit)")
    return limit


def _strings(value: Any) -> tuple[str, ...]:
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, (list, tuple)) or not all(isinstance(item, str) and item for item in items):
        raise ValueError("a list of texts")
    return tuple(items)


def _name(value: Any) -> str:
    text = value if isinstance(value, str) else str(value) if type(value) is int else ""
    odd = any(ord(c) < 32 or ord(c) == 127 or c in "/\\" or 0xD800 <= ord(c) < 0xE000 for c in text)
    if not text or odd or text[0] in ".-" or text != text.strip() or len(text.encode(errors="replace")) > 200:
        raise ValueError("a name for a folder in runs/, without slashes or a leading dot")
    return _string(text)


def _place(value: Any) -> str:
    text = _string(value)
    if "://" in text:
        raise ValueError("a folder on a file system (mount remote storage first)")
    return text


def _file(value: Any) -> str:
    if not isinstance(value, str) or not value.strip() or "://" in value or "${" in value:
        raise ValueError("the path of a file, such as results.jsonl")
    return value


def _version(value: Any) -> str:
    text = str(value) if isinstance(value, (str, float)) else ""
    if text not in VERSIONS:
        raise ValueError(f"one of {', '.join(VERSIONS)}, as the version_base of @hydra.main")
    return text


def _missing(value: Any) -> tuple[str, ...]:
    """Patterns of the keys that may be `???`."""
    if isinstance(value, bool):
        return ("*",) if value else ()
    try:
        return _strings(value)
    except ValueError:
        raise ValueError("true, or a list of keys") from None


def _trainer(value: Any) -> str:
    text = value if isinstance(value, str) else ""
    module, _, function = text.partition(":")
    if module.endswith(".py"):
        name = module.removesuffix(".py").removeprefix("./").replace("/", ".")
        raise ValueError(f"the name of a module rather than of its file, {name}:{function or 'train'}")
    if not function.isidentifier() or not all(part.isidentifier() for part in module.split(".")):
        raise ValueError("module:function, such as trainers.toy:train")
    return text


def _exclude(value: Any) -> tuple[Mapping[str, Any], ...]:
    entries = [value] if isinstance(value, Mapping) else value
    if not isinstance(entries, list) or not all(isinstance(e, Mapping) and e for e in entries):
        raise ValueError("a list of mappings, each of keys to values")
    if not all(isinstance(key, str) for entry in entries for key in entry):
        raise ValueError('keys that are texts (YAML reads an unquoted no or on as a boolean: quote it, "no")')
    return tuple(dict(entry) for entry in entries)


# ---------------------------------------------------------------- sections


def _objective(section: Section) -> Objective | None:
    value = section.given("objective")
    if value is None or isinstance(value, str):
        return Objective(section.take("objective", _string, "")) if value is not None else None
    if not isinstance(value, Mapping):
        raise section.wrong("objective", f"expected the name of a metric, or {{metric, mode, at}}, not {value!r}")
    inner = Section(value, section.inner("objective"), dict.fromkeys(("metric", "mode", "at")))
    metric = inner.take("metric", _string, "")
    if not metric:
        raise inner.wrong("metric", "is missing", "name the metric, e.g. metric: valid/loss")
    usual = Objective(metric)
    mode = inner.take("mode", _one_of("min", "max"), usual.mode)
    return Objective(metric, mode, inner.take("at", _one_of("last", "best"), usual.at))


def _retries(section: Section) -> Retries:
    value = section.given("retries")
    if value is None or not isinstance(value, Mapping):
        count = section.take("retries", _count(0), -1)
        least = Retries()
        return least if count < 0 else Retries(count, max(count, least.lost), max(count, least.oom))
    names = [field.name for field in dataclasses.fields(Retries)]
    inner = Section(value, section.inner("retries"), dict.fromkeys(names))
    return Retries(**{name: inner.take(name, _count(0), getattr(Retries, name)) for name in names})


def _search(section: Section) -> Search:
    value = section.given("search")
    if value is None:
        return Search()
    if isinstance(value, str):
        value = {"method": value}
    inner = Section(value, section.inner("search"), dict.fromkeys(("method", "trials", "seed")))
    if inner.given("method") in METHODS_LATER:
        raise inner.wrong("method", f"{inner.given('method')!r} is not supported yet", "use grid or random")
    usual = Search()
    method = inner.take("method", _one_of("grid", "random"), usual.method)
    count = inner.take("trials", _count(1), 0) or None
    if method == "random" and count is None:
        raise inner.wrong("trials", "random search needs to know how many trials", "write trials: 20")
    seed = inner.take("seed", _count(0), usual.seed)
    return Search(method, count, seed)


_WANDB = ("project", "entity", "mode", "tags", "notes", "group", "dir", "base_url")


def _paths(value: Any) -> tuple[str, ...]:
    found = _strings(value)
    if any(text.startswith(("/", "~", "!")) or ".." in text.split("/") or "${" in text for text in found):
        raise ValueError("patterns of paths below the project's folder, such as assets/*.bin")
    return found


_OURS = re.compile(r"CUDA_VISIBLE_DEVICES|PYTHONHASHSEED|(OMP|OPENBLAS|MKL|NUMEXPR)_NUM_THREADS|(__)?RAY(LET)?_.*")


def _env(section: Section) -> tuple[str, ...]:
    """Names of variables. A wrong value is not repeated: it may hold a secret."""
    try:
        found = _strings(section.given("env") or [])
    except ValueError:
        found = ("",)
    if not all(re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII) for name in found):
        what = "expected names of variables of your shell, without their values"
        raise section.wrong("env", what, "write env: [HF_HOME, API_TOKEN]")
    ours = [name for name in found if _OURS.fullmatch(name)]
    if ours:
        raise section.wrong("env", f"{ours[0]} is set for each trial", "leave it out")
    return tuple(dict.fromkeys(found))


def _code(section: Section) -> CodeRules:
    value = section.given("code")
    if value is None:
        return _USUAL.code
    inner = Section(value, section.inner("code"), dict.fromkeys(("include", "exclude")))
    return CodeRules(inner.take("include", _paths, ()), inner.take("exclude", _paths, ()))


def _tracking(section: Section) -> Mapping[str, Any]:
    """What each tracker that is named is told; False turns off one that would be on (tracking/trackers.py)."""
    value = section.given("tracking")
    if value is None:
        return {}
    if value is False:
        return {"wandb": False}
    trackers = Section(value, section.inner("tracking"), dict.fromkeys(("wandb", "jsonl")))
    jsonl = "" if trackers.given("jsonl") is False else trackers.take("jsonl", _file, "")
    return {"wandb": _wandb(trackers), **({"jsonl": jsonl} if jsonl else {})}


def _wandb(trackers: Section) -> Mapping[str, Any] | Literal[False]:
    wandb = trackers.given("wandb")
    if wandb is False:
        return False
    if wandb is None or wandb is True:
        return {}
    inner = Section(wandb, trackers.inner("wandb"), dict.fromkeys(_WANDB))
    no_tags: tuple[str, ...] = ()
    read: dict[str, Any] = {key: inner.take(key, _string, "") for key in _WANDB if key not in ("mode", "tags")}
    mode = _one_of("online", "offline", "disabled", "off", "shared")
    read |= {"mode": inner.take("mode", mode, ""), "tags": list(inner.take("tags", _strings, no_tags))}
    return read["mode"] not in ("disabled", "off") and {key: value for key, value in read.items() if value}


RESOURCES = ("gpus", "cpus", "memory", "custom", "labels")


def _resources(section: Section) -> Mapping[str, Any]:
    """The section as it is written. Values with `${...}` are checked later, for each trial."""
    value = section.given("resources")
    if value is None:
        return {}
    inner = Section(value, section.inner("resources"), dict.fromkeys(RESOURCES))
    written = {key: inner.given(key) for key in RESOURCES if inner.given(key) is not None}
    fixed = {key: value for key, value in written.items() if "${" not in repr(value)}
    resources(fixed, section.inner("resources"))
    return written


def resources(data: Mapping[str, Any], where: str = "sweep.resources") -> Resources:
    """The resources of one trial, checked. `data` contains no `${...}` any more."""
    inner, usual = Section(data, where, dict.fromkeys(RESOURCES)), Resources()
    return Resources(
        gpus=inner.take("gpus", gpus, usual.gpus),
        cpus=inner.take("cpus", amount, usual.cpus),
        memory=inner.take("memory", size, usual.memory),
        custom=inner.take("custom", amounts, usual.custom),
        labels=inner.take("labels", labels, usual.labels),
    )


ENDURANCE = ("retries", "grace", "timeout", "heartbeat", "stop_after_failures")
VERSIONS = ("1.1", "1.2", "1.3")  # of Hydra, as `version_base` takes them
KEYS = (
    *("name", "trainer", "objective", "steps", "seed", "repeats", "axes", "exclude", "ignore", "secrets", "resources"),
    *("search", "tracking", "start", "deterministic", "storage", "code", "env", "version_base", "allow_missing"),
    *ENDURANCE,
)


_USUAL = SweepSpec(name="", trainer="")  # where the defaults are written


def read(data: Any, file: Path, name: str) -> SweepSpec:
    """The checked `sweep` section. `name` is used if the section has no name."""
    wandb_sweep.check(data, f"{file}: sweep")
    section = Section(data, f"{file}: sweep", dict.fromkeys(KEYS))
    trainer = section.take("trainer", _trainer, "")
    if not trainer:
        raise section.wrong("trainer", "is missing", "name the function to call: trainer: module:function")
    if section.given("name") is None:
        section = Section({**data, "name": name}, section.where, dict.fromkeys(KEYS))
    return SweepSpec(
        name=section.take("name", _name, name),
        trainer=trainer,
        objective=_objective(section),
        steps=section.take("steps", _steps, None),
        seed=section.take("seed", _string, _USUAL.seed),
        repeats=section.take("repeats", _count(1), _USUAL.repeats),
        axes=section.given("axes") or _USUAL.axes,
        exclude=section.take("exclude", _exclude, _USUAL.exclude),
        ignore=section.take("ignore", _strings, _USUAL.ignore),
        secrets=section.take("secrets", _strings, _USUAL.secrets),
        resources=_resources(section),
        search=_search(section),
        tracking=_tracking(section),
        start=section.take("start", _one_of("fork", "spawn"), _USUAL.start),
        deterministic=section.take("deterministic", _one_of("warn", "error", "off"), _USUAL.deterministic),
        storage=section.take("storage", _place, "") or None,
        code=_code(section),
        version_base=section.take("version_base", _version, "") or None,
        allow_missing=section.take("allow_missing", _missing, _USUAL.allow_missing),
        env=_env(section),
        **_endurance(section),
    )


def _endurance(section: Section) -> dict[str, Any]:
    return {
        "retries": _retries(section),
        "grace": section.take("grace", seconds, _USUAL.grace),
        "timeout": section.take("timeout", _limit, 0.0) or None,
        "heartbeat": section.take("heartbeat", _limit, 0.0) or None,
        "stop_after_failures": section.take("stop_after_failures", _count(0), _USUAL.stop_after_failures),
    }


def endurance(data: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The fields of a SweepSpec that say when a trial or the sweep is given up, checked."""
    return _endurance(Section(data, where, dict.fromkeys(ENDURANCE)))
