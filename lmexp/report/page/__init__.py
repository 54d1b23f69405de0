"""The report page, its data and the server behind `report --serve`."""
