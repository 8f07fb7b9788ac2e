"""The YAML tree of GRPO, importable so that Hydra finds it as `pkg://tracetune.config.conf`."""
