"""Counts by hour of decisions and outcomes: all that the figures of a window are made from."""
