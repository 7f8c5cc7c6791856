"""From files to batches: reading, decoding, cropping, the audit of what was unreadable or odd."""
