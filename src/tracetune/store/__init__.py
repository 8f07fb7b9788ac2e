"""The records: traces, datasets, eval sets and runs. The only SQL of the house; no JAX here."""
