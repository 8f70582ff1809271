"""Image operations behind the edits, each on (B, 3, H, W) in 0..1 with one strength and one seed per image.

What an image becomes must not depend on its batch, nor on the number of threads. So operations use arithmetic that IEEE
defines to the last bit (sums, products, comparisons, rounding) and no reduction over pixels in floating point: powers
and exponentials differ by a bit between a vector lane and a loop's tail, float sums between orders of summation.
"""
