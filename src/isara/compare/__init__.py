"""Is it worth it? Every baseline at the same budget, on the same questions, in one resumable comparison."""
