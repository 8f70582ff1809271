"""The page of `calm serve`."""
