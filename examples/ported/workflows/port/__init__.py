"""Workflows of ports."""
