"""On-policy distillation as a policy step: the settings under which a policy backend trains the student."""

from tracetune.config.distill_schema import DistillConfig
from tracetune.config.grpo_schema import (
    GenerationSettings,
    GrpoConfig,
    GrpoModelSettings,
    GrpoSettings,
    GrpoTrainingSettings,
)


def policy_config(config: DistillConfig) -> GrpoConfig:
    """One update a batch, at the policy that sampled, the mean over tokens, without a reference: credit comes from the
    teacher, and `rloo` leaves it as it is."""
    model, training = config.model, config.training
    return GrpoConfig(
        backend=config.backend,
        seed=training.seed,
        model=GrpoModelSettings(name=model.name, lora=model.lora, dtype=model.dtype, mesh=model.mesh),
        optimizer=config.optimizer,
        grpo=GrpoSettings(num_generations=config.student.num_samples, num_iterations=1, beta=0.0, loss="rloo"),
        generation=GenerationSettings(
            max_prompt_length=model.max_length,
            max_generation_steps=config.student.max_tokens,
            temperature=1.0,
            top_k=None,
        ),
        training=GrpoTrainingSettings(
            micro_batch_size=training.batch_size * training.gradient_accumulation_steps,
            gradient_checkpointing=training.gradient_checkpointing,
        ),
    )
