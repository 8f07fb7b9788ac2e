"""The local JAX engine: step, optimizer, sampler, checkpoint."""
