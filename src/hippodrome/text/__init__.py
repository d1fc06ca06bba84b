"""Text as a checkpoint's folder has it: its tokenizer, its special tokens, its chat template."""
