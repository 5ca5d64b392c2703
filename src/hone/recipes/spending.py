"""A budget of tokens and money, of which the most that a request can cost is set aside before it is asked.

It knows no teacher and no rows. What was set aside and whose end is unknown (a request that timed out may have been
answered and charged) stays spent: the budget is never exceeded by what is not known.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from hone.errors import ConfigError

_MILLION: Final = 1_000_000


@dataclass(frozen=True)
class Tokens:
    """Tokens of one request: those it was asked with, and those it was answered with."""

    prompt: int
    completion: int

    @property
    def total(self) -> int:
        """Both together."""
        return self.prompt + self.completion


@dataclass(frozen=True)
class Limits:
    """What may be spent for one output, over all commands that wrote it; prices are money per million tokens."""

    max_tokens: int | None = None
    max_cost: float | None = None
    price_input: float | None = None
    price_output: float | None = None

    def __post_init__(self) -> None:
        if self.max_cost is not None and (self.price_input is None or self.price_output is None):
            raise ConfigError(
                "--max-cost cannot be kept without the teacher's prices",
                remedy="give --price-input and --price-output, in money per million tokens",
            )
        for name in ("max_tokens", "max_cost", "price_input", "price_output"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < float("inf"):
                raise ConfigError(f"a budget and its prices are 0 or more: {name} is {value}")

    @property
    def is_limit(self) -> bool:
        """Whether anything is limited."""
        return self.max_tokens is not None or self.max_cost is not None

    def cost(self, tokens: Tokens) -> float | None:
        """Money for these tokens; None where no prices are known."""
        if self.price_input is None or self.price_output is None:
            return None
        money = tokens.prompt * self.price_input + tokens.completion * self.price_output
        return money / _MILLION


class Spending:
    """What is spent, and what is set aside for requests under way."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.spent = Tokens(0, 0)
        self._aside = Tokens(0, 0)
        self.under_way = 0

    @property
    def cost(self) -> float | None:
        """Money spent; None without prices."""
        return self.limits.cost(self.spent)

    def reserve(self, most: Tokens) -> bool:
        """Set aside what a request can cost at most; False where that is more than is left."""
        all_told = _sum(_sum(self.spent, self._aside), most)
        limits = self.limits
        if limits.max_tokens is not None and all_told.total > limits.max_tokens:
            return False
        cost = limits.cost(all_told)
        if limits.max_cost is not None and cost is not None and cost > limits.max_cost:
            return False
        self._aside = _sum(self._aside, most)
        self.under_way += 1
        return True

    def settle(self, most: Tokens, spent: Tokens) -> None:
        """A request has ended: what was set aside for it is given back, and what it took is spent."""
        self._aside = Tokens(
            self._aside.prompt - most.prompt, self._aside.completion - most.completion
        )
        self.under_way -= 1
        self.spend(spent)

    def spend(self, tokens: Tokens) -> None:
        """Spent already, by an earlier command."""
        self.spent = _sum(self.spent, tokens)

    def told(self) -> str:
        """What is spent, of what may be, in words."""
        limits = self.limits
        tokens = f"{self.spent.total:,}"
        tokens += (
            f" of {limits.max_tokens:,} tokens" if limits.max_tokens is not None else " tokens"
        )
        if self.cost is None:
            return tokens
        money = f"{self.cost:,.4f}" + (f" of {limits.max_cost:,}" if limits.max_cost else "")
        return f"{tokens}, {money} in money"


def _sum(one: Tokens, other: Tokens) -> Tokens:
    return Tokens(one.prompt + other.prompt, one.completion + other.completion)
