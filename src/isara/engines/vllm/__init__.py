"""vLLM in a process of its own, which may have another environment."""
