"""What lies in the folder of a Tune trial, beside Tune's own files."""

from __future__ import annotations

SAVE_REQUEST = ".save_now"
"""A trial whose folder holds this file ends its iteration early, so that it can be saved."""
