"""Report -> str (text, JSON) and snapshot -> tables; nothing here prints."""
