"""Which generated answers are worth keeping: scores, what the seeds reach by them, and what follows from it."""
