"""Weights of other programs: read without running their code, and brought into our layout."""
