"""Looks after an output: what it holds, if it is sound, its index, its leftovers. Needs the store alone."""
