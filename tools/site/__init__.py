"""The Sphinx extensions of this book, each with its reason at the top."""
