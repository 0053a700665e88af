"""What is done about a model without being asked: it is watched, and drift is answered."""
