"""The commands of `peerloan`, each in the module of its name."""
