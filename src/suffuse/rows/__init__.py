"""Rows out of files, one at a time, each with its place, so that a bad one can be named."""

from suffuse.rows.files import PACKAGE_SCHEME, PlacedRow, Row, digest, locate, read_rows

__all__ = ["PACKAGE_SCHEME", "PlacedRow", "Row", "digest", "locate", "read_rows"]
