"""Trainers with torch that the tests of the node run."""

from __future__ import annotations

import ctypes
import hashlib
import os
from pathlib import Path

import torch
from torch.utils.data import DataLoader, TensorDataset


def learns(cfg, run):
    """Uses dropout, shuffling, workers and Adam, so that every number depends on the seed."""
    model = torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.Dropout(0.3), torch.nn.Linear(128, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    state = run.restore()
    first = 0
    if state is not None:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        first = state["epoch"] + 1
    torch_data = torch.arange(64 * 96, dtype=torch.float32).reshape(96, 64).sin()
    data = TensorDataset(torch_data, torch_data.sum(1, keepdim=True))
    for epoch in range(first, cfg.epochs):
        for x, y in DataLoader(data, batch_size=32, shuffle=True, num_workers=cfg.get("workers", 0)):
            optimizer.zero_grad()
            loss = torch.nn.functional.mse_loss(model(x), y)
            loss.backward()
            optimizer.step()
        run.report({"loss": loss}, step=epoch)
        run.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch}, step=epoch)
        if cfg.get("die") == epoch:
            os._exit(9)
    weights = b"".join(p.detach().numpy().tobytes() for p in model.parameters())
    print(hashlib.sha256(weights).hexdigest())
    print("threads", torch.get_num_threads(), torch.are_deterministic_algorithms_enabled())


def shows_threads(cfg, run):
    """Whether MKL may take fewer threads than it is told; 0 where torch has no MKL."""
    library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
    dynamic = library.mkl_serv_get_dynamic() if torch.backends.mkl.is_available() else 0
    run.report({"threads": torch.get_num_threads(), "dynamic": dynamic})


def calls_twice(cfg, run):
    """Reports how many functions give something else when they are called for the first time."""
    names = [
        *("acos", "asin", "atan", "cos", "cosh", "erf", "erfc", "erfinv", "exp", "expm1", "log", "log10", "log1p"),
        *("log2", "sin", "sinh", "sqrt", "tan", "tanh", "trunc"),
    ]
    different = []
    for kind in (torch.float32, torch.float64):
        numbers = torch.linspace(0.1, 0.9, 6144, dtype=kind)
        for function in (getattr(torch, name) for name in names):
            if not torch.equal(function(numbers), function(numbers)):
                different.append(function.__name__)
    run.report({"different": len(different)})


def warns(cfg, run):
    """Uses an operation that has no deterministic algorithm, twice."""
    for _ in range(2):
        torch.zeros(4).put_(torch.tensor([0, 0]), torch.ones(2))


def shares_a_tensor(cfg, run):
    """Leaves a tensor in shared memory, and exits in a way that runs no handler."""
    torch.multiprocessing.set_sharing_strategy("file_system")
    kept = torch.ones(1000).share_memory_()
    print(*(name for name in os.listdir("/dev/shm") if name.startswith(f"torch_{os.getpid()}_")))
    os._exit(int(kept[0]) - 1)
