"""Rows out of files, one at a time, each with its place, so that a bad one can be named."""

from suffuse.rows.files import PACKAGE_SCHEME, PlacedRow, Row, digest, is_remote, locate, read_rows
from suffuse.rows.remote import remote_files

__all__ = ["PACKAGE_SCHEME", "PlacedRow", "Row", "digest", "is_remote", "locate", "read_rows", "remote_files"]
