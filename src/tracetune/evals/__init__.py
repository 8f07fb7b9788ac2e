"""Model and problems in, EvalResult out; grading and the statistics of comparison."""
