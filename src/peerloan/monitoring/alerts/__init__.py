"""Alerts: the rules that fire, their events, and the delivery of events."""
