"""Web pages that are one file: they work from disk, in any browser, and load nothing from anywhere."""
