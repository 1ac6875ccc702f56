"""Reduced checks of the papers' claims on simulated scenes, all arms on the same scenes and seeds."""

CHECKS: dict = {}
