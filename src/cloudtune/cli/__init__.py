"""The command line: one file a command. A command parses, calls the public interface and renders; no logic here."""
