"""A trial ends as `python train.py` does, whether it is forked or a fresh process: trainers that are run three ways.

Compared are exit code, reported rows, output, files, and what is left in /dev/shm. The module `ends` has many trainers,
so that one zygote serves them all.
"""

from __future__ import annotations

import csv
import gzip
import io
import zipfile
from pathlib import Path

import pytest

from orchestrator.node.launch.zygote_pool import ZygotePool
from tests.unit.node.ways import WAYS, Seen, seen

MODULES = {
    "ends": """
        import atexit, bz2, ctypes, csv, errno, gzip, io, logging, logging.handlers, lzma, multiprocessing, os
        import pathlib, resource, shelve, signal, sqlite3, subprocess, sys, tempfile, threading, time, wave
        import weakref, zipfile
        from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
        from multiprocessing import shared_memory

        KEPT = []  # what lives until the process ends

        def train(cfg, run):
            return globals()[cfg.case](cfg, run)

        def leaves_files_open(cfg, run):
            table = csv.writer(open(run.dir / "table.csv", "w", newline=""))
            text = open(run.dir / "text", "w")
            binary = open(run.dir / "binary", "wb")
            both = open(run.dir / "both", "w+b")
            packed = gzip.GzipFile(run.dir / "packed.gz", "wb", mtime=0)
            packed_text = io.TextIOWrapper(gzip.GzipFile(run.dir / "text.gz", "wb", mtime=0))
            archive = zipfile.ZipFile(run.dir / "archive.zip", "w")
            entry = zipfile.ZipFile(run.dir / "entry.zip", "w").open("inside", "w")
            others = bz2.open(run.dir / "text.bz2", "wt"), lzma.open(run.dir / "text.xz", "wt")
            for number in range(20):
                table.writerow([number, number * number])
            text.write("text")
            binary.write(b"binary")
            both.write(b"both")
            packed.write(b"packed")
            packed_text.write("packed text")
            archive.writestr(zipfile.ZipInfo("inside"), "archive")
            entry.write(b"entry")
            others[0].write("bz2"), others[1].write("xz")
            KEPT.extend([table, text, binary, both, packed, packed_text, archive, entry, others])

        class Footer(io.RawIOBase):
            def __init__(self, file):
                self.file = file

            def close(self):
                if not self.closed:
                    self.file.write(b"footer")
                super().close()

        class Ending:
            def __init__(self, file):
                self.file = file

            def __del__(self):
                self.file.write("ended")

        def leaves_objects(cfg, run):
            sound = wave.open(str(run.dir / "sound.wav"), "wb")
            sound.setparams((1, 2, 8000, 0, "NONE", ""))
            sound.writeframesraw(bytes(200))
            shelf = shelve.Shelf({}, writeback=True)
            KEPT.extend([sound, shelf, Footer(gzip.GzipFile(run.dir / "footer.gz", "wb", mtime=0))])
            KEPT.append(Ending(open(run.dir / "ending", "w")))
            KEPT.append(tempfile.NamedTemporaryFile(dir=run.dir))
            folder = tempfile.TemporaryDirectory(dir=run.dir)
            pathlib.Path(folder.name, "inside").write_text("x")
            KEPT.append(folder)
            handler = logging.handlers.MemoryHandler(100, target=logging.FileHandler(run.dir / "log"))
            logger = logging.getLogger("mine")
            logger.addHandler(handler)
            logger.error("buffered")
            ctypes.CDLL(None).puts(b"printed by C")

        def leaves_a_generator(cfg, run):
            def steps():
                with open(run.dir / "steps", "w") as file:
                    try:
                        yield 1
                    finally:
                        file.write("ended")
            KEPT.append(steps())
            next(KEPT[-1])

        def leaves_a_transaction(cfg, run):
            database = sqlite3.connect(run.dir / "data.db")
            KEPT.append(database)
            database.execute("CREATE TABLE t (x)")
            database.commit()
            database.execute("INSERT INTO t VALUES (1)")

        def registers(cfg, run):
            def note(word):
                with open(run.dir / "noted", "a") as file:
                    file.write(word + " ")
            thing = Ending.__new__(Ending)
            thing.file = io.StringIO()
            weakref.finalize(thing, note, "finalizer")
            KEPT.append(thing)
            atexit.register(note, "handler")
            pool = ThreadPoolExecutor(1)
            pool.submit(time.sleep, 0.1)
            pool.submit(note, "pool")
            threading.Thread(target=lambda: (time.sleep(0.05), note("thread"))).start()
            print("without an end of line", end="")

        def shares_memory(cfg, run):
            block = shared_memory.SharedMemory(create=True, size=2**20)
            (run.dir / "shared").write_text(block.name)
            KEPT.append(block)

        def raises(cfg, run):
            KEPT.append(open(run.dir / "text", "w"))
            KEPT[-1].write("text")
            atexit.register(print, "handler")
            raise ValueError("wrong")

        def raises_with_a_hook(cfg, run):
            before = sys.excepthook
            def hook(kind, error, trace):
                (run.dir / "hook").write_text(kind.__name__)
                before(kind, error, trace)
            sys.excepthook = hook
            raise ValueError("wrong")

        def raises_with_a_silent_hook(cfg, run):
            sys.excepthook = lambda kind, error, trace: print("hooked", kind.__name__, error)
            raise ValueError("wrong")

        def raises_with_a_broken_hook(cfg, run):
            def hook(kind, error, trace):
                raise KeyError("broken")
            sys.excepthook = hook
            raise ValueError("wrong")

        def exits(cfg, run):
            before = sys.exit
            def hooked(code=None):
                print("exit", code)
                before(code)
            sys.exit = hooked
            atexit.register(print, "handler")
            sys.exit(3)

        def exits_with_a_message(cfg, run):
            sys.exit("bad data")

        def exceeds_the_file_size(cfg, run):
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
            try:
                with open(run.dir / "large", "wb", buffering=0) as file:
                    while True:
                        file.write(bytes(60_000))
            except OSError as error:
                return {"refused": error.errno == errno.EFBIG}

        def leaves_a_reader(cfg, run):
            command = "cat > written; sleep 0.2; echo done >> written"
            reader = subprocess.Popen(["sh", "-c", command], stdin=subprocess.PIPE, cwd=run.dir)
            reader.stdin.write(b"piped ")
            KEPT.append(reader)

        def leaves_an_executor(cfg, run):
            pool = ProcessPoolExecutor(1, multiprocessing.get_context("fork"))
            KEPT.extend([pool, pool.submit(time.sleep, 0.1)])
            return pool.submit(abs, -3).result()

        def raises_in_a_thread(cfg, run):
            thread = threading.Thread(target=lambda: 1 / 0, name="mine")
            thread.start()
            thread.join()

        def exits_with_a_negative_code(cfg, run):
            sys.exit(-1)

        def closes_descriptors(cfg, run):
            run.report({"before": 1})
            os.closerange(3, 65536)
            files = [open(run.dir / f"file-{number}", "w") for number in range(20)]
            run.report({"after": 2})
            for file in files:
                file.write(os.path.basename(file.name))
            run.report({"after": 3})

        def exits_hard(cfg, run):
            KEPT.append(open(run.dir / "text", "w"))
            KEPT[-1].write("lost")
            os._exit(4)

        def leaves_a_pool(cfg, run):
            pool = multiprocessing.get_context("fork").Pool(1)
            KEPT.append(pool)
            return sum(pool.map(abs, [-1, -2]))

        def ends_its_children_at_once(cfg, run):
            ended = 0
            while ended < 300:
                child = os.fork()
                if not child:
                    time.sleep(20)
                    os._exit(0)
                os.kill(child, signal.SIGTERM)
                if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != -signal.SIGTERM:
                    break
                ended += 1
            return ended
    """,
    "handled": """
        import os, signal, sys
        import pathlib

        HERE = []

        def save_and_leave(number, frame):
            (HERE[0] / "saved").write_text("by the handler")
            sys.exit(7)

        signal.signal(signal.SIGTERM, save_and_leave)
        signal.signal(signal.SIGUSR1, lambda number, frame: print("got USR1", flush=True))

        def train(cfg, run):
            HERE.append(run.dir)
            os.kill(os.getpid(), signal.SIGUSR1)
            os.kill(os.getpid(), signal.SIGTERM)
    """,
    "ignoring": """
        import os, signal
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

        def train(cfg, run):
            os.kill(os.getpid(), signal.SIGTERM)
            return 0.5
    """,
    "opened": """
        DATA = open(__file__, "rb")
        HEAD = DATA.read(10)

        def train(cfg, run):
            (run.dir / "data").write_bytes(DATA.read(20) + bytes([DATA.seek(3)]) + DATA.read(5))
    """,
    "settings": """
        import gc, os, pathlib, signal, sys, threading

        os.umask(0o027)
        os.chdir(pathlib.Path(__file__).parent.parent)
        gc.disable()
        os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
        signal.signal(signal.SIGALRM, lambda number, frame: print("alarm"))
        signal.signal(signal.SIGINT, signal.SIG_IGN)

        def train(cfg, run):
            signal.raise_signal(signal.SIGALRM)
            print(os.getcwd(), gc.isenabled(), os.sched_getaffinity(0), signal.getsignal(signal.SIGINT))
            (run.dir / "file").touch()
            print(oct((run.dir / "file").stat().st_mode), signal.pthread_sigmask(signal.SIG_BLOCK, ()))
    """,
    "made": """
        import atexit, os, pathlib, shutil, tempfile
        FOLDER = pathlib.Path(tempfile.mkdtemp(dir=pathlib.Path(__file__).parent))
        atexit.register(shutil.rmtree, FOLDER)
        print("imported")

        def train(cfg, run):
            (FOLDER / run.dir.parent.parent.parent.parent.name).write_text("mine")
            print(len(list(FOLDER.iterdir())))
    """,
    "awaited": """
        import asyncio

        async def train(cfg, run):
            await asyncio.sleep(0)
            run.report({"loss": 0.5})
            return {"last": 1.0}
    """,
}
CASES = [
    *(
        ("ends", case)
        for case in (
            "leaves_files_open",
            "leaves_objects",
            "leaves_a_generator",
            "leaves_a_transaction",
            "registers",
            "shares_memory",
            "raises",
            "raises_with_a_hook",
            "raises_with_a_silent_hook",
            "raises_with_a_broken_hook",
            "exits",
            "exits_with_a_message",
            "exceeds_the_file_size",
            "leaves_a_pool",
            "leaves_a_reader",
            "leaves_an_executor",
            "raises_in_a_thread",
            "exits_with_a_negative_code",
            "exits_hard",
            "ends_its_children_at_once",
            "closes_descriptors",
        )
    ),
    ("handled", ""),
    ("ignoring", ""),
    ("awaited", ""),
    ("opened", ""),
    ("settings", ""),
    ("made", ""),
]
NOT_FORKED = ("made",)  # what it does when it is imported is for one process


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    for name, text in MODULES.items():
        (folder / f"{name}.py").write_text("\n".join(line[8:] for line in text.splitlines()) + "\n")
    return folder


@pytest.fixture(scope="module")
def python(project: Path, zygote_pool: ZygotePool) -> dict[tuple[str, str], Seen]:
    """What plain Python does with each."""
    return {(module, case): seen("python", project, module, {"case": case}, zygote_pool) for module, case in CASES}


@pytest.mark.parametrize("way", WAYS[1:])
@pytest.mark.parametrize(("module", "case"), CASES)
def test_a_trial_equals_plain_python(
    project: Path,
    python: dict[tuple[str, str], Seen],
    zygote_pool: ZygotePool,
    module: str,
    case: str,
    way: str,
) -> None:
    forks = module not in NOT_FORKED
    assert seen(way, project, module, {"case": case}, zygote_pool, forks) == python[module, case]
    assert not list(project.glob("tmp*")), "what it has made is gone"


def test_what_plain_python_does_is_as_intended(python: dict[tuple[str, str], Seen]) -> None:
    """So that the comparison compares what it should: each case does its thing in plain Python."""
    files = python["ends", "leaves_files_open"].files
    assert list(csv.reader(io.StringIO(files["table.csv"].decode())))[19] == ["19", "361"]
    assert gzip.decompress(files["packed.gz"]) == b"packed"
    assert gzip.decompress(files["text.gz"]) == b"packed text"
    assert zipfile.ZipFile(io.BytesIO(files["archive.zip"])).read("inside") == b"archive"
    objects = python["ends", "leaves_objects"]
    assert sorted(objects.files) == ["ending", "footer.gz", "log", "sound.wav"]
    assert objects.log == ["printed by C"]
    assert len(python["ends", "registers"].files["noted"]) == len("thread pool finalizer handler ")
    assert python["ends", "shares_memory"].shared == []
    assert python["ends", "raises"].log[-2:] == ["ValueError: wrong", "handler"]
    assert python["ends", "exits"].exit_code == 3
    assert python["ends", "exceeds_the_file_size"].rows == [{"refused": True}]
    assert python["ends", "leaves_a_reader"].files == {"written": b"piped done\n"}
    assert python["handled", ""].exit_code == 7
    assert python["ends", "closes_descriptors"].rows == [{"before": 1}, {"after": 2}, {"after": 3}]
    assert python["awaited", ""].rows == [{"loss": 0.5}, {"last": 1.0}]
