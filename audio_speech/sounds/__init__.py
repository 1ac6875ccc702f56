"""Recordings of any kind: speech, music, sounds. What they hold is read window by window; what is said of them too."""
