"""Reports as self-contained HTML pages, and the model card."""
