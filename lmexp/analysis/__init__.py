"""From records to findings; no torch here."""
