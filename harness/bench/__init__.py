"""Running cells: names are resolved once, then asked, scored and compared, in which order, and how far."""
