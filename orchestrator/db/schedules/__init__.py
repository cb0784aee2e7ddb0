"""Schedules: their rows, what became of their slots, who has changed them, and what code declares."""
