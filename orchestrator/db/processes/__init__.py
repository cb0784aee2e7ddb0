"""The process rows and their log: one module per kind of statement."""
