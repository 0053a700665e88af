"""Counts of decisions and outcomes by hour, from which all figures of a window are computed."""
