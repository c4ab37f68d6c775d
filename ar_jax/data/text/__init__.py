"""Text: vocabularies, corpora, a user's own files, and chains made by rule."""
