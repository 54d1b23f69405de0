"""The final loss of a run, predicted while it trains, from its curve and from finished runs of the same sweep."""
