"""Recommendation: multimodal, sequential and two-tower systems under a full-ranking evaluation."""
