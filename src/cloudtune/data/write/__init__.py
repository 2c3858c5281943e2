"""The file formats for writing records, and HTML pages about them."""
