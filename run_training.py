"""GRPO: python run_training.py [group=option] [key=value] [+experiment=quick_test|full_training] [--multirun]."""

from tracetune.cli.grpo import train_program

if __name__ == "__main__":
    train_program()
