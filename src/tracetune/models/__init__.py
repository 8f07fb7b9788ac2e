"""One transformer for all families, LoRA, tokenizers, Hugging Face weights: pure functions over pytrees."""
