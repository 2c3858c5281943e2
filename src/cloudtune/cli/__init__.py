"""The command line, one file per command. Commands parse options, call the public API and render the result."""
