"""The process rows and their log: one module for each kind of statement."""
