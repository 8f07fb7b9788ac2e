"""Measure a GRPO checkpoint: python evaluate.py checkpoint_dir=… [step=N] [inference_config=…] [num_passes=K]."""

from tracetune.cli.grpo import evaluate_program

if __name__ == "__main__":
    evaluate_program()
