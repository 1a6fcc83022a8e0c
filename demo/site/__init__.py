"""A small document library: upload, look at, replace, delete. Nothing in it knows that its files are moving."""
