"""Findings shown: terminal, HTML, files."""
