"""Molecular and circuit graphs."""
