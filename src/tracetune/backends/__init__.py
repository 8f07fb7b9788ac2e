"""One small protocol and its homes."""
