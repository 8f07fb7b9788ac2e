"""The recipes: loops as generators of StepInfo over a backend."""
