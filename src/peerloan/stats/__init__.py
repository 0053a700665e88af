"""Statistical formulas, each defined once. They import only numpy and the standard library."""
