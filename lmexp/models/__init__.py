"""Language models as plain torch modules; no Lightning here."""
