"""Tracetune: traces in, a measurably better model out."""
