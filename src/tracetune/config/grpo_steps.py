"""How many optimizer steps a GRPO run takes."""

from tracetune.config.grpo_schema import GrpoConfig


def num_grpo_steps(config: GrpoConfig, *, num_problems: int | None = None) -> int:
    """`num_batches × num_iterations × train_fraction × num_epochs`, rounded down; at least one.

    With `num_problems` an epoch has no more batches than whole steps of problems, so no run waits for data that is
    not there.

    >>> num_grpo_steps(GrpoConfig()), num_grpo_steps(GrpoConfig(), num_problems=40)
    (3738, 10)
    """
    training = config.training
    num_batches = training.num_batches
    if num_problems is not None:
        num_batches = min(num_batches, max(1, num_problems // training.micro_batch_size))
    product = num_batches * config.grpo.num_iterations * config.data.train_fraction * training.num_epochs
    # 100 × 0.29 is 28.999… in binary; a millionth of a step is no step.
    return max(1, int(product + 1e-6))
