"""Reports for people, as HTML pages that stand alone, and the model card."""
