"""Who runs where and what survives: threads, actors, restarts, checkpoints."""
