"""Trainers with torch that the tests of the node run."""

from __future__ import annotations

import hashlib
import os

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
