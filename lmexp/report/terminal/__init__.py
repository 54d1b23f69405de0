"""Results printed in the terminal, one file per verb."""
