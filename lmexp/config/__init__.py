"""Configs: the typed schema, composition by Hydra, cells, identity."""
