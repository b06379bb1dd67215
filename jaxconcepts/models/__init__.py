"""Architectures: a config dataclass and a block each, all run by the one residual stack."""
