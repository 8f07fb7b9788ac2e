"""The dials of GRPO. Each default is written here and nowhere else; values arrive checked from `config.compose`."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class RewardSettings:
    """One reward by the name of a built-in or as `module:function`, and what its scores are multiplied by."""

    function: str
    weight: float = 1.0
