"""Workflows of nodes."""
