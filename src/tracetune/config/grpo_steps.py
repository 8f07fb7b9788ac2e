"""How many optimizer steps a GRPO run takes."""

from tracetune.config.grpo_schema import GrpoConfig
from tracetune.core.errors import InputError


def num_grpo_steps(config: GrpoConfig, *, num_problems: int | None = None) -> int:
    """`num_steps`, or `num_batches × num_iterations × train_fraction × num_epochs`, rounded down; at least one.

    With `num_problems` an epoch has no more batches than whole steps of problems, so no run waits for data that is
    not there. Raises InputError where neither says how many batches there are.

    >>> num_grpo_steps(GrpoConfig()), num_grpo_steps(GrpoConfig(), num_problems=40)
    (3738, 10)
    """
    training = config.training
    if training.num_steps is not None:
        return training.num_steps
    there = None if num_problems is None else max(1, num_problems // training.micro_batch_size)
    bounds = [count for count in (training.num_batches, there) if count is not None]
    if not bounds:
        raise InputError(
            "training.num_batches: null is as many as the problems make, which are not read here; give "
            "training.num_steps"
        )
    product = min(bounds) * config.grpo.num_iterations * config.data.train_fraction * training.num_epochs
    # 100 × 0.29 is 28.999… in binary; a millionth of a step is no step.
    return max(1, int(product + 1e-6))
