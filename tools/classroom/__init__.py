"""Exercises as one source: what a class needs is made from the chapters."""
