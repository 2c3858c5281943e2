"""The file formats that records are written in, and HTML pages about them."""
