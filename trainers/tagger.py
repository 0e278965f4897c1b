"""A small recurrent tagger: hashed n-grams, an LSTM, and a score for each tag of each token."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import Any
from zlib import crc32

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pack_sequence, pad_packed_sequence, pad_sequence

IGNORE = -100  # the tag of padding


@dataclass(frozen=True)
class Batch:
    """A batch of addresses as tensors. In the shapes, `tokens` is the sum of the lengths."""

    grams: Tensor  # [grams]: rows of the embedding table, token after token
    offsets: Tensor  # [tokens]: the index in `grams` at which each token begins
    lengths: list[int]  # [batch]: tokens of each address
    tags: Tensor  # [batch, time]: IGNORE after the end of an address


class Encoder:
    """Converts tokens and labels to the network's input."""

    def __init__(self, embeddings: Any, tags: Sequence[str], device: torch.device) -> None:
        words, min_n, max_n, buckets = (embeddings[k] for k in ("words", "min_n", "max_n", "buckets"))
        self.subwords = lru_cache(maxsize=None)(lambda token: subwords(token, words, min_n, max_n, buckets))
        self.index = {tag: i for i, tag in enumerate(tags)}
        self.device = device

    def batch(self, addresses: Sequence[Sequence[tuple[str, str]]]) -> Batch:
        """One batch."""
        bags = [self.subwords(token) for address in addresses for token, _ in address]
        sizes = torch.tensor([len(bag) for bag in bags])
        tags = [torch.tensor([self.index[tag] for _, tag in address]) for address in addresses]
        return Batch(
            grams=torch.tensor(list(chain.from_iterable(bags))).to(self.device),
            offsets=(sizes.cumsum(0) - sizes).to(self.device),
            lengths=[len(address) for address in addresses],
            tags=pad_sequence(tags, batch_first=True, padding_value=IGNORE).to(self.device),
        )

    def batches(self, addresses: Sequence[Sequence[tuple[str, str]]], size: int) -> Iterator[Batch]:
        """The addresses, `size` at a time, in the order given."""
        for start in range(0, len(addresses), size):
            yield self.batch(addresses[start : start + size])


def subwords(token: str, words: bool, min_n: int, max_n: int, buckets: int) -> list[int]:
    """The rows of the embedding table for a token's n-grams, with marked ends, and for the word itself.

    CRC-32 gives the same value in every process and on every machine; `hash` does not.
    """
    marked = f"<{token}>"
    grams = [marked[i : i + n] for n in range(min_n, max_n + 1) for i in range(len(marked) - n + 1)]
    if words:
        grams.append(f" {token}")  # never equal to an n-gram
    return [crc32(gram.encode()) % buckets for gram in grams]


class Tagger(nn.Module):
    """An LSTM that gives a score for each tag of each token."""

    def __init__(self, embeddings: Any, model: Any, tags: int) -> None:
        super().__init__()
        self.embed = nn.EmbeddingBag(embeddings.buckets, embeddings.dim, mode="mean")
        self.lstm = nn.LSTM(embeddings.dim, model.hidden, model.layers, bidirectional=model.bidirectional)
        self.score = nn.Linear(model.hidden * (2 if model.bidirectional else 1), tags)

    def forward(self, batch: Batch) -> Tensor:
        """Scores [batch, time, tags]. Those after the end of an address are meaningless."""
        vectors = self.embed(batch.grams, batch.offsets)  # [tokens, dim]
        # Packed, so that the backward direction starts at the last token and not in the padding.
        packed = pack_sequence(vectors.split(batch.lengths), enforce_sorted=False)
        hidden, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True)  # [batch, time, hidden]
        scores: Tensor = self.score(hidden)
        return scores


def loss(scores: Tensor, tags: Tensor) -> Tensor:
    """The mean cross-entropy over tokens. `scores`: [batch, time, tags], `tags`: [batch, time]."""
    return cross_entropy(scores.flatten(0, 1), tags.flatten(), ignore_index=IGNORE)
