"""Files that rows name: images and recordings, found in folders, checked, and addressed by their content."""
