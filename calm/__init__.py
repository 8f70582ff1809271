"""calm: aesthetic scores, comments, personal scores and suggestions for photographs, after CALM (AAAI 2025).

Importing calm teaches transformers' Auto classes the model type "calm"; the model's code is loaded when asked for.
"""

from calm._registration import register

__version__ = "0.1.0"  # the build backend reads it here without importing calm

register()
