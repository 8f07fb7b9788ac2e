"""Losses: arrays in, (loss, metrics) out; no model, no input or output."""
