"""Forecasts: what a law says of a run that does not exist yet, which run is the one, and how the forecast did."""
