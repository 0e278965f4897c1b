"""Tag every token of a postal address: street number, street name, municipality, ...

The trainer of `conf/sweep.yaml`. What makes it one is the signature `train(cfg, run)`; of `run` it uses
`seed`, `dir`, `report`, `save` and `restore`. By the time `train` is called, torch has been seeded and has its
number of threads.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate

from trainers import addresses
from trainers.tagger import Batch, Encoder, Tagger, loss


def train(cfg: Any, run: Any) -> None:
    """Train for `cfg.training_settings.epochs` epochs; report, and save, after each."""
    device = pick(cfg.training_settings.device)
    labelled, tags = addresses.load(cfg.dataset)
    training, validation = addresses.split(labelled, cfg.dataset.held_out, cfg.dataset.split_seed)
    size = cfg.data_loader.batch_size
    encoder = Encoder(cfg.embeddings, tags, device)
    held_out = list(encoder.batches(validation, size))

    model = Tagger(cfg.embeddings, cfg.model, len(tags)).to(device)
    optimizer = instantiate(cfg.optimizer, model.parameters(), _convert_="all")
    done = resume(model, optimizer, run.restore())
    for epoch in range(done + 1, cfg.training_settings.epochs + 1):
        order = shuffled(training, run.seed, epoch)
        metrics = {"train/loss": fit(model, optimizer, encoder.batches(order, size))}
        run.report(metrics | evaluate(model, held_out), step=epoch)
        run.save({"epoch": epoch, "model": model.state_dict(), "optimizer": optimizer.state_dict()}, step=epoch)

    examples = validation[:10]
    Path(run.dir, "predictions.txt").write_text(side_by_side(model, encoder, examples, tags), encoding="utf-8")


def pick(device: str) -> torch.device:
    """`auto`: the GPU that the trial was given, if any."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(device)


def resume(model: Tagger, optimizer: torch.optim.Optimizer, state: dict[str, Any] | None) -> int:
    """Take up a saved state; the number of epochs done, 0 without one."""
    if state is None:
        return 0
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["epoch"])


def shuffled(training: list[addresses.Address], seed: int, epoch: int) -> list[addresses.Address]:
    """The epoch's order, from (seed, epoch) alone: a resumed trial goes on as if it had never stopped."""
    return random.Random(f"{seed} {epoch}").sample(training, len(training))


def fit(model: Tagger, optimizer: torch.optim.Optimizer, batches: Iterable[Batch]) -> float:
    """One epoch; the mean loss over its batches."""
    model.train()
    losses = []
    for batch in batches:
        optimizer.zero_grad()
        value = loss(model(batch), batch.tags)
        value.backward()
        optimizer.step()
        losses.append(value.detach())
    return torch.stack(losses).mean().item()


@torch.no_grad()
def evaluate(model: Tagger, batches: Iterable[Batch]) -> dict[str, float]:
    """Mean loss and share of right tags, over tokens."""
    model.eval()
    total, right, tokens = 0.0, 0, 0
    for batch in batches:
        scores = model(batch)
        count = sum(batch.lengths)
        total += loss(scores, batch.tags).item() * count
        right += int((scores.argmax(-1) == batch.tags).sum())  # never true in the padding: no tag is IGNORE
        tokens += count
    return {"valid/loss": total / tokens, "valid/accuracy": right / tokens}


@torch.no_grad()
def side_by_side(model: Tagger, encoder: Encoder, examples: list[addresses.Address], tags: list[str]) -> str:
    """A line a token: the token, its predicted tag, and the true one where they differ."""
    guesses = model(encoder.batch(examples)).argmax(-1)  # [batch, time]
    blocks = []
    for address, row in zip(examples, guesses.tolist(), strict=True):
        found = [(token, tags[guess], tag) for (token, tag), guess in zip(address, row, strict=False)]  # row: padded
        blocks.append("".join(f"{t:24} {g}{'' if g == tag else f' (is {tag})'}\n" for t, g, tag in found))
    return "\n".join(blocks)
