"""What the pipeline makes up, and says so: views, scores, raters and comments from known edits and from ratings."""
