"""What a run leaves behind: predictions, summary, curves, and pictures on a page."""
