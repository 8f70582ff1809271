"""What datasets have in common: a source, a folder of files, tables of cells, conversations."""
