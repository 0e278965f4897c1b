"""Tags every token of a postal address: street number, street name, municipality, ...

This is the trainer of `conf/sweep.yaml`. A trainer is a function with the signature `train(cfg, run)`. This one uses
`seed`, `dir`, `report`, `save` and `restore` of `run`. Before `train` is called, torch is seeded and its number of
threads is set.
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
    """Train for `cfg.training_settings.epochs` epochs. Report and save after each."""
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
    """The device. `auto` means the GPU of the trial if it has one, else the CPU."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(device)


def resume(model: Tagger, optimizer: torch.optim.Optimizer, state: dict[str, Any] | None) -> int:
    """Load a saved state if there is one. Returns the number of finished epochs."""
    if state is None:
        return 0
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["epoch"])


def shuffled(training: list[addresses.Address], seed: int, epoch: int) -> list[addresses.Address]:
    """The order of an epoch. It depends only on seed and epoch, so a resumed trial continues as if never stopped."""
    return random.Random(f"{seed} {epoch}").sample(training, len(training))


def fit(model: Tagger, optimizer: torch.optim.Optimizer, batches: Iterable[Batch]) -> float:
    """Train for one epoch. Returns the mean loss of its batches."""
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
    """The mean loss and the share of correct tags, over all tokens."""
    model.eval()
    total, correct, tokens = 0.0, 0, 0
    for batch in batches:
        scores = model(batch)
        count = sum(batch.lengths)
        total += loss(scores, batch.tags).item() * count
        correct += int((scores.argmax(-1) == batch.tags).sum())  # padding is never counted, because no tag is IGNORE
        tokens += count
    return {"valid/loss": total / tokens, "valid/accuracy": correct / tokens}


@torch.no_grad()
def side_by_side(model: Tagger, encoder: Encoder, examples: list[addresses.Address], tags: list[str]) -> str:
    """One line per token: the token, its predicted tag, and the true tag if it differs."""
    guesses = model(encoder.batch(examples)).argmax(-1)  # [batch, time]
    blocks = []
    for address, row in zip(examples, guesses.tolist(), strict=True):
        found = [
            (token, tags[guess], tag) for (token, tag), guess in zip(address, row, strict=False)
        ]  # the row is padded
        blocks.append("".join(f"{t:24} {g}{'' if g == tag else f' (is {tag})'}\n" for t, g, tag in found))
    return "\n".join(blocks)
