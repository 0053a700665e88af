"""Tests of what is deployed, in a real engine."""
