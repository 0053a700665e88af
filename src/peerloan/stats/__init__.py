"""Statistical formulas, each once; they need numpy alone."""
