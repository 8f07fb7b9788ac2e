"""A task is problems and a verifier; the same object rewards training and scores evaluation."""
