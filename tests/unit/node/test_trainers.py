"""The example's trainers: their data, that they learn, that one seed gives one result, and that they resume."""

from __future__ import annotations

import copy
import io
import os
import shutil
import subprocess
import sys
import tarfile
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from trainers import address_tagging, addresses, canadian, toy
from trainers.tagger import IGNORE, Encoder, Tagger, subwords

CONF = Path(__file__).parents[3] / "conf"
LEARNS = ("optimizer=adam", "optimizer.lr=0.01")


def config(name: str, *overrides: str) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(name, list(overrides))


class Run:
    """A fake `run`: seeds torch as the orchestrator does, and keeps what is reported and saved."""

    def __init__(self, folder: Path, seed: int = 42, state: Any = None, stop_after: int | None = None) -> None:
        self.dir, self.seed, self.state, self.stop_after = folder, seed, state, stop_after
        self.rows: dict[int, dict[str, float]] = {}
        torch.manual_seed(seed)

    def report(self, metrics: dict[str, float], step: int) -> None:
        self.rows[step] = dict(metrics)

    def save(self, state: Any, step: int) -> None:
        self.state = copy.deepcopy(state)
        if step == self.stop_after:
            raise InterruptedError

    def restore(self) -> Any:
        return self.state


def tag(run: Run, *overrides: str) -> dict[int, dict[str, float]]:
    address_tagging.train(config("sweep", *overrides), run)
    return run.rows


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """An uninterrupted training."""
    run = Run(tmp_path_factory.mktemp("finished"))
    tag(run, *LEARNS)
    return run


# ---------------------------------------------------------------- the data


def test_all_real_addresses_are_loaded() -> None:
    labelled, tags = addresses.load(config("sweep").dataset)
    assert len(labelled) == 1513
    assert len(tags) == 29
    assert sum(map(len, labelled)) == 10722
    assert {label for address in labelled for _, label in address} == set(tags)
    assert all(token and not any(c.isspace() for c in token) for address in labelled for token, _ in address)


def test_1308_real_addresses_map_onto_eight_tags() -> None:
    labelled, tags = addresses.load(config("sweep", "dataset.tags=eight").dataset)
    assert len(labelled) == 1308
    assert set(tags) == {"StreetNumber", "StreetName", "Unit", "Municipality", "Province", "PostalCode"} | {
        "Orientation",
        "GeneralDelivery",
    }
    assert {label for address in labelled for _, label in address} == set(tags)


def test_the_synthetic_addresses_are_repeatable_and_use_every_tag() -> None:
    first = canadian.generate(400, ["en_CA", "fr_CA"], seed=0)
    assert first == canadian.generate(400, ["en_CA", "fr_CA"], seed=0)
    assert first != canadian.generate(400, ["en_CA", "fr_CA"], seed=1)
    mapped = addresses.onto_eight(first)
    assert len(mapped) == 400
    assert {label for address in mapped for _, label in address} == set(filter(None, addresses.EIGHT.values()))


def test_the_data_set_all_has_real_and_synthetic_addresses() -> None:
    labelled, tags = addresses.load(config("sweep", "dataset=all").dataset)
    assert len(labelled) == 1308 + 1500
    assert len(tags) == 8


def test_unknown_tags_are_refused() -> None:
    with pytest.raises(ValueError, match="'all' or 'eight'"):
        addresses.load(config("sweep", "dataset.tags=nine", "dataset=canadian").dataset)


def test_the_split_has_every_address_once_and_depends_on_its_seed_alone() -> None:
    labelled = [[(str(i), "ZipCode")] for i in range(100)]
    training, validation = addresses.split(labelled, 0.2, seed=0)
    assert len(validation) == 20
    assert sorted(training + validation) == sorted(labelled)
    assert (training, validation) == addresses.split(labelled, 0.2, seed=0)
    assert validation != addresses.split(labelled, 0.2, seed=1)[1]


def test_a_wrong_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    source = config("sweep").dataset.sources.us
    wrong = addresses.cache() / "usaddress-0.5.16.tar.gz"
    wrong.write_bytes(b"something else")
    with pytest.raises(addresses.DataError, match=r"not the file that the config names.*Delete it"):
        addresses.sdist(source)


@pytest.fixture
def package_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, list[str]]]:
    """A folder from which pip downloads, with a cache that is empty; and the source distributions it has asked for."""
    folder, asked = tmp_path / "index", []
    folder.mkdir()

    class Handler(SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.endswith(".tar.gz"):
                asked.append(self.path)
            super().do_GET()

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        without_pip_settings(monkeypatch)
        monkeypatch.setenv("PIP_FIND_LINKS", f"http://127.0.0.1:{server.server_address[1]}/")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        yield folder, asked
        server.shutdown()


def without_pip_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in [key for key in os.environ if key.startswith("PIP_")]:
        monkeypatch.delenv(key)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")


def test_a_wrong_download_never_reaches_the_cache(package_index: tuple[Path, list[str]]) -> None:
    name = "usaddress-0.5.16.tar.gz"
    metadata = b"Metadata-Version: 2.1\nName: usaddress\nVersion: 0.5.16\n"
    project = b'[build-system]\nrequires = ["setuptools"]\n[project]\nname = "usaddress"\nversion = "0.5.16"\n'
    with tarfile.open(package_index[0] / name, "w:gz") as archive:
        for file, content in {"PKG-INFO": metadata, "pyproject.toml": project}.items():
            entry = tarfile.TarInfo(f"usaddress-0.5.16/{file}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    with pytest.raises(addresses.DataError, match="sha256"):
        addresses.sdist(config("sweep").dataset.sources.us)
    assert package_index[1] == [f"/{name}"]
    assert not (addresses.cache() / name).exists()


def test_without_a_network_the_message_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_pip_settings(monkeypatch)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(addresses.DataError, match=r"offline\?.*go online and run again, or put .* there"):
        addresses.sdist(config("sweep").dataset.sources.us)


@pytest.fixture
def usaddress() -> Path:
    """The real file, downloaded once with the settings of whoever runs the tests."""
    return addresses.sdist(config("sweep").dataset.sources.us)


def test_trials_that_start_together_download_once(usaddress: Path, package_index: tuple[Path, list[str]]) -> None:
    source = config("sweep").dataset.sources.us
    shutil.copy(usaddress, package_index[0])
    with ThreadPoolExecutor(8) as pool:
        paths = list(pool.map(lambda _: addresses.sdist(source), range(8)))
    assert len(set(paths)) == 1
    assert package_index[1] == [f"/{usaddress.name}"]


def test_a_missing_faker_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faker", None)
    with pytest.raises(addresses.DataError, match="pip install Faker"):
        canadian.generate(1, ["en_CA"], seed=0)


# ---------------------------------------------------------------- the network


def test_subwords() -> None:
    everything = subwords("ab", words=True, min_n=3, max_n=6, buckets=10**6)  # <ab ab> <ab> and the word
    assert len(set(everything)) == 4
    assert len(subwords("ab", words=False, min_n=1, max_n=3, buckets=10**6)) == 4 + 3 + 2
    assert set(subwords("Main", words=True, min_n=1, max_n=3, buckets=7)) <= set(range(7))


@pytest.mark.parametrize("model", ["lstm", "bi_lstm", "lstm_bidirectionnal", "bi_lstm_bidirectionnal"])
def test_padding_changes_no_score(model: str) -> None:
    cfg = config("sweep", f"model={model}")
    encoder = Encoder(cfg.embeddings, ["A", "B"], torch.device("cpu"))
    short, long = [("12", "A")], [("12", "A"), ("Main", "B"), ("St", "B")]
    network = Tagger(cfg.embeddings, cfg.model, tags=2)
    both = encoder.batch([short, long])
    assert both.tags.tolist() == [[0, IGNORE, IGNORE], [0, 1, 1]]
    scores = network(both)  # [2, 3, 2]
    torch.testing.assert_close(scores[:1, :1], network(encoder.batch([short])))
    torch.testing.assert_close(scores[1:], network(encoder.batch([long])))


def test_a_short_training_learns(finished: Run) -> None:
    labelled, _ = addresses.load(config("sweep").dataset)
    labels = Counter(label for address in labelled for _, label in address)
    majority = max(labels.values()) / labels.total()  # 0.17
    accuracy = [row["valid/accuracy"] for row in finished.rows.values()]
    assert list(finished.rows) == [1, 2, 3]
    assert accuracy[-1] > 0.8 > 4 * majority
    assert finished.rows[3]["train/loss"] < finished.rows[1]["train/loss"]


def test_the_example_differs_where_it_should(finished: Run, tmp_path: Path) -> None:
    plain = finished.rows[3]["valid/accuracy"]
    assert tag(Run(tmp_path), *LEARNS, "model=lstm_bidirectionnal")[3]["valid/accuracy"] > plain
    assert tag(Run(tmp_path), "optimizer=SGD", "optimizer.lr=1.0")[3]["valid/accuracy"] < plain - 0.2


def test_predictions_are_written(finished: Run) -> None:
    blocks = (Path(finished.dir) / "predictions.txt").read_text(encoding="utf-8").split("\n\n")
    assert len(blocks) == 10
    token, guess = blocks[0].splitlines()[0].split()[:2]
    assert token
    assert guess in addresses.EIGHT


def test_one_seed_gives_one_series(finished: Run, tmp_path: Path) -> None:
    assert tag(Run(tmp_path), *LEARNS) == finished.rows
    assert tag(Run(tmp_path, seed=43), *LEARNS, "training_settings.epochs=1")[1] != finished.rows[1]


def test_a_resumed_training_equals_an_uninterrupted_one(finished: Run, tmp_path: Path) -> None:
    broken = Run(tmp_path, stop_after=1)
    with pytest.raises(InterruptedError):
        tag(broken, *LEARNS)
    resumed = Run(tmp_path, state=broken.state)
    torch.manual_seed(7)  # a resumed process need not be where the first one was
    assert broken.rows | tag(resumed, *LEARNS) == finished.rows
    assert list(resumed.rows) == [2, 3]


def test_every_operation_is_deterministic(tmp_path: Path) -> None:
    torch.use_deterministic_algorithms(True)
    try:  # an operation without a deterministic algorithm raises
        rows = tag(
            Run(tmp_path), "training_settings.epochs=1", "dataset=canadian", "dataset.sources.canadian.addresses=50"
        )
    finally:
        torch.use_deterministic_algorithms(False)
    assert list(rows) == [1]


def test_a_warm_process_may_fork_after_the_import() -> None:
    script = (
        "import os, trainers.address_tagging, trainers.toy, torch\n"
        "print(len(os.listdir('/proc/self/task')), torch.cuda.is_initialized())"
    )
    env = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=CONF.parent, env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["1", "False"]


# ---------------------------------------------------------------- the toy


def play(run: Run, *overrides: str) -> list[float]:
    toy.train(config("toy", "sleep=0", *overrides), run)
    return [row["loss"] for row in run.rows.values()]


def test_the_toy_learns_and_diverges(tmp_path: Path) -> None:
    good = play(Run(tmp_path), "lr=0.1")
    assert good[-1] < good[0] / 4
    assert play(Run(tmp_path), "lr=0.01")[-1] > good[-1]
    assert play(Run(tmp_path), "lr=1.5")[-1] > 1


def test_the_toy_is_repeatable_and_resumes(tmp_path: Path) -> None:
    whole = play(Run(tmp_path))
    assert play(Run(tmp_path)) == whole
    assert play(Run(tmp_path, seed=1)) != whole
    broken = Run(tmp_path, stop_after=4)
    with pytest.raises(InterruptedError):
        play(broken)
    assert play(Run(tmp_path, state=broken.state)) == whole[4:]


def test_the_toy_fails_when_asked(tmp_path: Path) -> None:
    run = Run(tmp_path)
    with pytest.raises(RuntimeError, match="step 5"):
        play(run, "fail_at=5")
    assert list(run.rows) == [1, 2, 3, 4]
