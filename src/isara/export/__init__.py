"""What a run is taken home as: GGUF files, a folder for Ollama, rows for other trainers, a repository on the hub."""
