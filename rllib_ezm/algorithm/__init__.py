"""RLlib's classes of EZ-M, under RLlib's names."""
