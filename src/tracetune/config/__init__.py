"""Settings: every dial frozen and typed, every mistake reported at once. No JAX here."""
