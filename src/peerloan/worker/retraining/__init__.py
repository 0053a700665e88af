"""The response to drift: train a challenger from known outcomes, evaluate it, nominate it."""
