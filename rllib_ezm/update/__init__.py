"""One gradient step, from a replay batch to new priorities; torch only."""
