"""The nouns and their rules, the search grammar, the error vocabulary. Imports the standard library only."""
