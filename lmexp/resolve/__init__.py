"""From configs to runs that can start: sources, devices and run directories filled in."""
