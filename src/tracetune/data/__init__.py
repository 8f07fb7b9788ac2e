"""From files and traces to packed batches: sources, selection, dedup, decontamination, render, pack."""
