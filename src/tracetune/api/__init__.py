"""The HTTP door: parse, ask `app`, answer JSON. Every route declares who may use it; no SQL and no JAX here."""
