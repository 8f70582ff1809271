"""Stage `filter_leakage`: no test photograph, whole, cropped or mirrored, in any training list."""
