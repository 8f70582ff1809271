"""Image operations behind the edits, each on (B, 3, H, W) in 0..1 with one strength and one seed per image.

What an image becomes must not depend on its batch, nor on the number of threads (`tests/attributes/test_edits.py`). So
pixels are not raised to powers, which differ by a bit between a vector lane and a loop's tail, and means over a picture
are taken of integers, since a sum of floats changes with the number of threads. Convolutions run image by image.
"""
