"""Interaction logs, item features and splits: files in, tables of numbers with persistent names out."""
