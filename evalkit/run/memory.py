"""Shards of a run that leaves no files."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from evalkit.run.shard import Shard


@dataclass(frozen=True, kw_only=True)
class InMemory:
    """Keeps shards as `evalkit.run.unfinished.Unfinished` does, for as long as it lives."""

    shards: dict[int, Shard] = field(default_factory=dict)

    def write(self, shard: Shard) -> None:
        """Keep a shard."""
        self.shards[shard.number] = shard

    def read(self, number: int) -> Shard:
        """Return a shard, once."""
        return self.shards.pop(number)

    def gave_probabilities(self, number: int) -> bool:
        """Whether all scores of a shard could be probabilities."""
        rows = self.shards[number].rows
        return rows is None or bool(rows.like_probabilities.all())
