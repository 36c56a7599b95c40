"""What papers have printed: their tables, whose figures are quoted with their sources and measured nowhere here."""
